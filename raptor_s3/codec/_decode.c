/* An object from the symbols at hand (RFC 6330 4.4, 5.4), one source block after another.

   A block that misses m source symbols and has m independent repair symbols subtracts what it holds from these (syndromes) and
   inverts the m x m part of their rows. Without a generator (large K'), or with much missing, inactivation decoding finds the
   intermediate symbols instead.

   Whoever owns the symbols may change them meanwhile, in another thread: each payload id is read for good where it decides on
   an address. */

#include "_rows.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    uint32_t sbn, esi;
    uint8_t *symbol;
} repair;

/* A source block */
typedef struct {
    size_t symbols, size, length, missing, repairs;
    const uint8_t **held; /* K: where a source symbol is, or NULL */
    const repair *repair; /* ascending, distinct */
} holding;

/* ---- what is there ---- */

static size_t symbols_of(const rq_object *object, size_t sbn) { return object->least + (sbn < object->longer); }

static size_t first_of(const rq_object *object, size_t sbn) {
    return object->least * sbn + (sbn < object->longer ? sbn : object->longer);
}

/* SBN and ESI of symbol i; 0 if there is no such source block. */
static int read_id(const rq_received *received, const rq_object *object, size_t i, repair *id) {
    id->symbol = received->at + i * received->stride;
    if (received->esis) {
        id->sbn = 0;
        id->esi = received->esis[i];
    } else {
        const uint8_t *octets = id->symbol - 4;
        id->sbn = octets[0];
        id->esi = (uint32_t)octets[1] << 16 | (uint32_t)octets[2] << 8 | octets[3];
    }
    return id->sbn < object->blocks;
}

static int by_id(const void *a, const void *b) {
    const repair *x = a, *y = b;
    if (x->sbn != y->sbn) return x->sbn < y->sbn ? -1 : 1;
    if (x->esi != y->esi) return x->esi < y->esi ? -1 : 1;
    return (x->symbol > y->symbol) - (x->symbol < y->symbol); /* of duplicates, the first counts */
}

static size_t count_repairs(const rq_received *received, const rq_object *object) {
    size_t repairs = 0;
    repair id;
    for (size_t i = 0; i < received->count; i++)
        repairs += read_id(received, object, i, &id) && id.esi >= symbols_of(object, id.sbn);
    return repairs;
}

/* held: of all blocks. The number of distinct repair symbols, at most `most`. */
static size_t sort_out(const rq_received *received, const rq_object *object, const uint8_t **held, repair *repairs, size_t most) {
    size_t count = 0;
    int ascending = 1;
    repair id;
    memset((void *)held, 0, object->symbols * sizeof *held);
    for (size_t i = 0; i < received->count; i++) {
        if (!read_id(received, object, i, &id)) continue;
        if (id.esi < symbols_of(object, id.sbn)) {
            const uint8_t **place = held + first_of(object, id.sbn) + id.esi;
            if (!*place) *place = id.symbol;
        } else if (count < most) {
            ascending &= !count || by_id(repairs + count - 1, &id) < 0;
            repairs[count++] = id;
        }
    }
    if (!ascending) qsort(repairs, count, sizeof *repairs, by_id);
    size_t distinct = 0;
    for (size_t i = 0; i < count; i++) {
        if (!distinct || repairs[i].sbn != repairs[distinct - 1].sbn || repairs[i].esi != repairs[distinct - 1].esi)
            repairs[distinct++] = repairs[i];
    }
    return distinct;
}

/* ---- a generator ---- */

static int bit_of(const uint8_t *bits, size_t at) { return bits[at / 8] >> (at % 8) & 1; }

/* Choose m independent repair rows and invert their m x m part, one row at a time: inverse[i] = [row in the lost columns | row in
   the chosen rows]. Gauss-Jordan keeps every pivot's column clear in all other rows, so a new row is reduced by one product. */
static size_t choose_rows(const rq_code *code, const holding *h, const uint32_t *lost, rq_rows *rows, uint8_t *inverse,
                          uint32_t *pivot_of, uint32_t *chosen, uint8_t *factors, const uint8_t **terms) {
    const rq_arithmetic *gf = rq_arithmetic_now();
    const size_t m = h->missing, width = 2 * m;
    uint8_t *change = inverse + m * width;
    for (size_t at = 0; at < h->repairs && rows->count < m; at++) {
        const size_t rank = rows->count;
        uint8_t *bits = rows->bits + rank * code->packed, *fresh = inverse + rank * width;
        rq_make_row(code, h->repair[at].esi + (code->padded - (uint32_t)h->symbols), bits, rows->masks + rank);
        for (size_t i = 0; i < m; i++) fresh[i] = (uint8_t)bit_of(bits, lost[i]);
        for (size_t free_column = 0; free_column < code->hdpc; free_column++) {
            if (!(rows->masks[rank] >> free_column & 1)) continue;
            for (size_t i = 0; i < m; i++) fresh[i] ^= code->frees[free_column * code->padded + lost[i]];
        }
        memset(fresh + m, 0, m);
        fresh[m + rank] = 1;
        if (rank) {
            for (size_t i = 0; i < rank; i++) {
                factors[i] = fresh[pivot_of[i]];
                terms[i] = inverse + i * width;
            }
            gf->product(&change, 1, factors, rank, terms, rank, width);
            gf->multiply_add(fresh, change, 1, width);
        }
        uint32_t column = 0;
        while (column < m && !fresh[column]) column++;
        if (column == m) continue;
        const uint8_t scale = rq_inverse(fresh[column]);
        if (scale != 1) gf->multiply_add(fresh, fresh, scale ^ 1, width);
        for (size_t i = 0; i < rank; i++) {
            const uint8_t factor = inverse[i * width + column];
            if (factor) gf->multiply_add(inverse + i * width, fresh, factor, width);
        }
        pivot_of[rank] = column;
        chosen[rank] = (uint32_t)at;
        rows->count++;
    }
    return rows->count;
}

/* `out` has the symbols that are held; the others come. */
static int decode_dense(const rq_code *code, const holding *h, uint8_t *out, size_t *deficiency) {
    const rq_arithmetic *gf = rq_arithmetic_now();
    const size_t m = h->missing, k = h->symbols, size = h->size, packed = code->packed;
    uint8_t *last, *zeros, *inverse, *factors, *syndromes, **to;
    uint32_t *lost, *pivot_of, *chosen;
    const uint8_t **terms;
    rq_rows rows = {.count = 0};
    void *memory = RQ_CUT({&last, size}, {&zeros, size}, {&rows.bits, m * packed}, {&rows.masks, m * sizeof *rows.masks},
                          {&inverse, (m + 1) * 2 * m}, {&lost, m * sizeof *lost}, {&pivot_of, m * sizeof *pivot_of},
                          {&chosen, m * sizeof *chosen}, {&factors, m}, {&terms, m * sizeof *terms}, {&to, m * sizeof *to},
                          {&syndromes, m * size});
    if (!memory) return RQ_NO_MEMORY;
    memset(zeros, 0, size);
    size_t found = 0;
    for (uint32_t esi = 0; esi < k && found < m; esi++) {
        if (!h->held[esi]) lost[found++] = esi;
    }
    int status = RQ_OK;
    const size_t rank = choose_rows(code, h, lost, &rows, inverse, pivot_of, chosen, factors, terms);
    if (rank < m) {
        *deficiency = m - rank;
        status = RQ_SINGULAR;
    }
    if (status == RQ_OK) {
        for (size_t i = 0; i < m; i++) {
            h->held[lost[i]] = zeros;
            terms[i] = to[i] = syndromes + i * size;
        }
        status = rq_apply_rows(code, &rows, h->held, k, size, to);
    }
    if (status == RQ_OK) {
        const size_t whole = h->length / size;
        for (size_t i = 0; i < m; i++) {
            const uint32_t esi = lost[pivot_of[i]];
            gf->multiply_add(to[i], h->repair[chosen[i]].symbol, 1, size);
            to[i] = esi < whole ? out + esi * size : last;
        }
        gf->product(to, m, inverse + m, 2 * m, terms, m, size);
        if (whole < k && h->held[k - 1] == zeros) memcpy(out + whole * size, last, h->length - whole * size);
    }
    free(memory);
    return status;
}

/* ---- inactivation decoding ---- */

/* The lost symbols go where repair symbols were, or to *restored, and `held` is complete. */
static int decode_sparse(const rq_code *code, const holding *h, int may_overwrite, uint8_t **restored, size_t *deficiency) {
    const size_t k = h->symbols, padding = code->padded - k, count = code->padded - h->missing + h->repairs;
    uint32_t *isis;
    const uint8_t **symbols;
    uint8_t *intermediate;
    void *memory =
        RQ_CUT({&isis, count * sizeof *isis}, {&symbols, count * sizeof *symbols}, {&intermediate, code->total * h->size});
    if (!memory) return RQ_NO_MEMORY;
    size_t n = 0;
    for (uint32_t isi = 0; isi < code->padded; isi++) {
        if (isi < k && !h->held[isi]) continue;
        isis[n] = isi;
        symbols[n++] = isi < k ? h->held[isi] : NULL;
    }
    for (size_t i = 0; i < h->repairs; i++) {
        isis[n] = h->repair[i].esi + (uint32_t)padding;
        symbols[n++] = h->repair[i].symbol;
    }
    int status = rq_solve(code, isis, symbols, n, h->size, intermediate, deficiency);
    if (status == RQ_OK && !may_overwrite && !(*restored = malloc(h->missing * h->size))) status = RQ_NO_MEMORY;
    size_t found = 0;
    for (uint32_t esi = 0; status == RQ_OK && esi < k; esi++) {
        if (h->held[esi]) continue;
        uint8_t *to = may_overwrite ? h->repair[found].symbol : *restored + found * h->size;
        rq_lt_symbol(code, esi, intermediate, h->size, to);
        h->held[esi] = to;
        found++;
    }
    free(memory);
    return status;
}

/* ---- together ---- */

static void put_together(const holding *h, uint8_t *out) {
    for (size_t esi = 0, at = 0; esi < h->symbols; esi++, at += h->size) {
        if (!h->held[esi]) continue;
        const size_t octets = h->length - at < h->size ? h->length - at : h->size;
        memcpy(out + at, h->held[esi], octets);
        if (octets == h->size) h->held[esi] = out + at;
    }
}

/* Whatever a block needs besides its result is free before `out` exists, so that both can't add up. */
static int decode_block(const rq_code *code, const holding *h, size_t at, rq_result *result, int may_overwrite) {
    const int sparse = h->missing && (!code->masks || h->missing > 48 + h->symbols / 16); /* where the two cross on AVX2 */
    uint8_t *restored = NULL;
    int status = sparse ? decode_sparse(code, h, may_overwrite, &restored, &result->missing) : RQ_OK;
    if (status == RQ_OK && !result->out && !(result->out = result->make(result->context))) status = RQ_NO_MEMORY;
    if (status == RQ_OK) { /* first one pass over what may lie far away, then the arithmetic on the copy */
        put_together(h, result->out + at);
        if (h->missing && !sparse) status = decode_dense(code, h, result->out + at, &result->missing);
    }
    free(restored);
    return status;
}

int rq_decode(const rq_code *longer, const rq_code *shorter, const rq_received *received, const rq_object *object,
              rq_result *result) {
    const size_t most = count_repairs(received, object);
    const uint8_t **held;
    repair *repairs;
    void *memory = RQ_CUT({&held, object->symbols * sizeof *held}, {&repairs, most * sizeof *repairs});
    if (!memory) return RQ_NO_MEMORY;
    const size_t count = sort_out(received, object, held, repairs, most);
    int status = RQ_OK;
    result->missing = 0;
    for (size_t sbn = 0, next = 0; sbn < object->blocks; sbn++) {
        const size_t k = symbols_of(object, sbn), first = first_of(object, sbn);
        size_t distinct = 0;
        for (size_t i = 0; i < k; i++) distinct += held[first + i] != NULL;
        for (; next < count && repairs[next].sbn == sbn; next++) distinct++;
        result->distinct[sbn] = distinct;
        if (distinct < k) result->missing += k - distinct;
    }
    if (result->missing) status = RQ_SINGULAR;
    for (size_t sbn = 0, next = 0; status == RQ_OK && sbn < object->blocks; sbn++) {
        holding h = {.symbols = symbols_of(object, sbn),
                     .size = object->size,
                     .held = held + first_of(object, sbn),
                     .repair = repairs + next};
        const size_t at = first_of(object, sbn) * object->size, left = object->length - at;
        h.length = left < h.symbols * h.size ? left : h.symbols * h.size;
        for (size_t i = 0; i < h.symbols; i++) h.missing += !h.held[i];
        h.repairs = result->distinct[sbn] - (h.symbols - h.missing);
        next += h.repairs;
        status = decode_block(sbn < object->longer ? longer : shorter, &h, at, result, received->may_overwrite);
    }
    if (status == RQ_OK) result->missing = 0;
    free(memory);
    return status;
}
