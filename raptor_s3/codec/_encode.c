/* Datagrams of a source block (RFC 6330 3.2, 5.3). */

#include "_rows.h"

#include <stdlib.h>
#include <string.h>

#define REPAIR_CHUNK 128u /* repair symbols made at a time: bounds the scratch memory of a long run */

static size_t octets_of(const rq_source *source, size_t esi) {
    const size_t left = source->length - esi * source->size;
    return left < source->size ? left : source->size;
}

static int make_repair(const rq_code *code, const uint8_t *intermediate, const rq_source *source, uint32_t first_isi,
                       uint8_t *const *to, size_t count) {
    if (!code->masks) {
        for (size_t i = 0; i < count; i++) rq_lt_symbol(code, first_isi + (uint32_t)i, intermediate, source->size, to[i]);
        return RQ_OK;
    }
    const size_t k = source->symbols, size = source->size, chunk = count < REPAIR_CHUNK ? count : REPAIR_CHUNK;
    const uint8_t **symbols;
    uint8_t *last;
    rq_rows rows;
    void *memory = RQ_CUT({&symbols, k * sizeof *symbols}, {&last, size}, {&rows.bits, chunk * code->packed},
                          {&rows.masks, chunk * sizeof *rows.masks});
    if (!memory) return RQ_NO_MEMORY;
    for (size_t j = 0; j < k; j++) symbols[j] = source->data + j * size;
    const size_t tail = octets_of(source, k - 1);
    if (tail < size) {
        memcpy(last, source->data + (k - 1) * size, tail);
        memset(last + tail, 0, size - tail);
        symbols[k - 1] = last;
    }
    int status = RQ_OK;
    for (size_t at = 0; status == RQ_OK && at < count; at += chunk) {
        rows.count = count - at < chunk ? count - at : chunk;
        for (size_t i = 0; i < rows.count; i++)
            rq_make_row(code, first_isi + (uint32_t)(at + i), rows.bits + i * code->packed, rows.masks + i);
        status = rq_apply_rows(code, &rows, symbols, k, size, to + at);
    }
    free(memory);
    return status;
}

int rq_write_packets(const rq_code *code, const uint8_t *intermediate, const rq_source *source, const rq_slots *slots) {
    const uint32_t k = (uint32_t)source->symbols;
    const uint32_t end = slots->first_esi + slots->count, first_repair = slots->first_esi > k ? slots->first_esi : k;
    const uint32_t repairs = end > first_repair ? end - first_repair : 0;
    uint8_t *few[REPAIR_CHUNK], **to = few;
    if (repairs > REPAIR_CHUNK && !(to = malloc(repairs * sizeof *to))) return RQ_NO_MEMORY;
    for (uint32_t i = 0; i < slots->count; i++) {
        const uint32_t esi = slots->first_esi + i;
        uint8_t *at = slots->at + i * slots->stride;
        memcpy(at, slots->prefix, slots->prefix_length);
        at += slots->prefix_length;
        *at++ = (uint8_t)slots->sbn;
        *at++ = (uint8_t)(esi >> 16);
        *at++ = (uint8_t)(esi >> 8);
        *at++ = (uint8_t)esi;
        if (esi < k) {
            const size_t octets = octets_of(source, esi);
            memcpy(at, source->data + esi * source->size, octets);
            memset(at + octets, 0, source->size - octets);
        } else {
            to[esi - first_repair] = at;
        }
    }
    int status = RQ_OK;
    if (repairs) status = make_repair(code, intermediate, source, first_repair + (code->padded - k), to, repairs);
    if (to != few) free(to);
    return status;
}

int rq_make_intermediate(const rq_code *code, const rq_source *source, uint8_t *out) {
    const size_t k = source->symbols, size = source->size, padded = code->padded;
    const uint8_t **symbols;
    uint32_t *isis;
    uint8_t *last;
    void *memory = RQ_CUT({&symbols, padded * sizeof *symbols}, {&isis, padded * sizeof *isis}, {&last, size});
    if (!memory) return RQ_NO_MEMORY;
    for (size_t j = 0; j < padded; j++) {
        isis[j] = (uint32_t)j;
        symbols[j] = j < k ? source->data + j * size : NULL;
    }
    const size_t tail = octets_of(source, k - 1);
    memset(last, 0, size);
    memcpy(last, source->data + (k - 1) * size, tail);
    symbols[k - 1] = last;
    size_t deficiency;
    const int status = rq_solve(code, isis, symbols, padded, size, out, &deficiency);
    free(memory);
    return status;
}
