/* Repair symbols from source symbols (RFC 6330 5.3.5.3, through a plan's generator).

   A repair symbol is a sum of source symbols (a row of bits) and of some free columns, which are at most sixteen GF(256)
   combinations of the source symbols. A few repair symbols are made as rows of GF(256) coefficients; many share the free columns
   and the sums of four. */

#include "_rows.h"

#include <stdlib.h>
#include <string.h>

#define COMBINE_SYMBOLS 32u /* source symbols from which the sums of four pay */
#define CACHE_LINE 64u

void *rq_cut(const rq_part *parts, size_t count) {
    const size_t most = SIZE_MAX / 2;
    size_t total = CACHE_LINE;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].size > most - total) return NULL;
        total += (parts[i].size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
        if (total > most) return NULL;
    }
    uint8_t *memory = malloc(total), *at = memory;
    if (!memory) return NULL;
    at += CACHE_LINE - (uintptr_t)memory % CACHE_LINE;
    for (size_t i = 0; i < count; i++) {
        memcpy(parts[i].to, &at, sizeof at);
        at += (parts[i].size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    }
    return memory;
}

void rq_lt_symbol(const rq_code *code, uint32_t isi, const uint8_t *intermediate, size_t size, uint8_t *to) {
    uint16_t columns[RQ_MAX_ROW];
    const uint8_t *terms[RQ_MAX_ROW];
    const size_t count = rq_lt_row(code, isi, columns);
    for (size_t i = 0; i < count; i++) terms[i] = intermediate + columns[i] * size;
    rq_arithmetic_now()->sum(to, terms, count, size);
}

void rq_make_row(const rq_code *code, uint32_t isi, uint8_t *bits, uint16_t *mask) {
    uint16_t columns[RQ_MAX_ROW];
    const uint8_t *terms[RQ_MAX_ROW];
    const size_t count = rq_lt_row(code, isi, columns);
    *mask = 0;
    for (size_t i = 0; i < count; i++) {
        uint16_t free_columns;
        memcpy(&free_columns, code->masks + 2 * (size_t)columns[i], 2);
        *mask ^= free_columns;
        terms[i] = code->bits + columns[i] * code->packed;
    }
    rq_arithmetic_now()->sum(bits, terms, count, code->packed);
}

static int multiply_rows(const rq_code *code, const rq_rows *rows, const uint8_t *const *symbols, size_t k, size_t size,
                         uint8_t *const *to) {
    const rq_arithmetic *gf = rq_arithmetic_now();
    uint8_t few[2048], *coefficients = few;
    const uint8_t *terms[RQ_MAX_HDPC + 1];
    if (rows->count * code->padded > sizeof few && !(coefficients = malloc(rows->count * code->padded))) return RQ_NO_MEMORY;
    for (size_t i = 0; i < rows->count; i++) {
        uint8_t *row = coefficients + i * code->padded;
        size_t count = 0;
        rq_unpack(row, rows->bits + i * code->packed, code->padded);
        terms[count++] = row;
        for (size_t free_column = 0; free_column < code->hdpc; free_column++) {
            if (rows->masks[i] >> free_column & 1) terms[count++] = code->frees + free_column * code->padded;
        }
        if (count > 1) gf->sum(row, terms, count, code->padded);
    }
    gf->product(to, rows->count, coefficients, code->padded, symbols, k, size);
    if (coefficients != few) free(coefficients);
    return RQ_OK;
}

static uint32_t bits_at(const uint8_t *bits, size_t word) {
    bits += 4 * word;
    return (uint32_t)bits[0] | (uint32_t)bits[1] << 8 | (uint32_t)bits[2] << 16 | (uint32_t)bits[3] << 24;
}

/* The free columns are made once: as bit planes, or as rows before. */
static int combine_rows(const rq_code *code, const rq_rows *rows, const uint8_t *const *symbols, size_t k, size_t size,
                        uint8_t *const *to) {
    const rq_arithmetic *gf = rq_arithmetic_now();
    const size_t frees = code->hdpc, planes = gf->prefers_planes ? 8 * frees : 0, count = rows->count + planes,
                 words = (k + 31) / 32, terms = 32 * words;
    const uint8_t **from, *free_rows[RQ_MAX_HDPC];
    uint8_t *tables, *sums, *zeros, *values, *to_free[RQ_MAX_HDPC];
    uint64_t *picks;
    void *memory = RQ_CUT({&tables, RQ_TABLES}, {&sums, count * RQ_TILE}, {&from, terms * sizeof *from},
                          {&picks, words * count * sizeof *picks}, {&zeros, size}, {&values, planes ? 0 : frees * size});
    if (!memory) return RQ_NO_MEMORY;
    memset(zeros, 0, size);
    memcpy(from, symbols, k * sizeof *from);
    for (size_t j = k; j < terms; j++) from[j] = zeros;
    if (!planes) {
        for (size_t i = 0; i < frees; i++) free_rows[i] = to_free[i] = values + i * size;
        gf->product(to_free, frees, code->frees, code->padded, symbols, k, size);
    }
    for (size_t i = 0; i < count; i++) {
        const uint8_t *bits = i < rows->count ? rows->bits + i * code->packed : code->planes + (i - rows->count) * code->packed;
        for (size_t word = 0; word < words; word++) picks[word * count + i] = rq_picks(bits_at(bits, word));
    }
    const rq_combination combination = {from, words, rows->count, frees, planes, picks, rows->masks, free_rows, tables, sums};
    gf->combine(to, &combination, size);
    free(memory);
    return RQ_OK;
}

int rq_apply_rows(const rq_code *code, const rq_rows *rows, const uint8_t *const *symbols, size_t k, size_t size,
                  uint8_t *const *to) {
    const int many = rows->count >= rq_arithmetic_now()->combine_from && k >= COMBINE_SYMBOLS && size >= RQ_TILE;
    return (many ? combine_rows : multiply_rows)(code, rows, symbols, k, size, to);
}
