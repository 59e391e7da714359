/* Inactivation decoding (RFC 6330 5.4.2), the values: intermediate symbols C from A * C = D, along the structure that _peeling.c
   found.

   First the rows left over, with the inactive columns left out; they give the inactive columns with the free ones zero, and these
   the pivots. Then the HDPC rows give the free columns, and each column gets its share of them.

   A plan's generator is the same for symbols that are bits: source symbol i is the i-th unit vector. */

#include "_peeling.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const uint8_t *const *symbols; /* of the LT rows; NULL for zeros */
    size_t size;
    uint8_t *out;          /* L x size */
    const uint8_t **terms; /* scratch: pointers to sum */
} values;

static void sum_row(const rq_structure *s, const values *v, uint32_t row, uint32_t skip, int with_inactive, uint8_t *to) {
    size_t count = 0;
    if (row >= s->code->ldpc && v->symbols[row - s->code->ldpc]) v->terms[count++] = v->symbols[row - s->code->ldpc];
    for (uint32_t k = s->start[row]; k < s->start[row + 1]; k++) {
        const uint32_t column = s->columns[k];
        if (column != skip && (with_inactive || s->place[column] == RQ_NONE)) v->terms[count++] = v->out + column * v->size;
    }
    rq_arithmetic_now()->sum(to, v->terms, count, v->size);
}

static void sum_pivots(const rq_structure *s, const values *v, int with_inactive) {
    for (uint32_t i = 0; i < s->pivots; i++) {
        sum_row(s, v, s->pivot_row[i], s->pivot_column[i], with_inactive, v->out + s->pivot_column[i] * v->size);
    }
}

/* All columns, with the free ones zero. */
static int binary_values(const rq_structure *s, values *v) {
    const size_t most = s->longest > s->lefts ? s->longest : s->lefts;
    uint8_t *left = malloc(s->lefts * v->size + 1);
    v->terms = malloc((most + 2) * sizeof *v->terms);
    if (!left || !v->terms) {
        free(left);
        free((void *)v->terms);
        return RQ_NO_MEMORY;
    }
    sum_pivots(s, v, 0);
    for (uint32_t i = 0; i < s->lefts; i++) sum_row(s, v, s->left[i], RQ_NONE, 0, left + i * v->size);
    for (uint32_t u = 0; u < s->inactives; u++) {
        size_t count = 0;
        const uint32_t row = s->solved_by[u];
        for (uint32_t i = 0; row != RQ_NONE && i < s->lefts; i++) {
            if (rq_has_bit(s->mix + row * s->mix_words, i)) v->terms[count++] = left + i * v->size;
        }
        rq_arithmetic_now()->sum(v->out + s->inactive[u] * v->size, v->terms, count, v->size);
    }
    sum_pivots(s, v, 1);
    free(left);
    free((void *)v->terms);
    return RQ_OK;
}

/* The free columns, f x size, from all columns with the free ones zero. */
static int free_values(const rq_structure *s, const uint8_t *rows, size_t size, int packed, uint8_t *out) {
    const size_t h = s->code->hdpc;
    uint8_t *scratch = malloc((RQ_CHUNK + 1 + h) * size), *to[RQ_MAX_HDPC];
    if (!scratch) return RQ_NO_MEMORY;
    uint8_t *checks = scratch + (RQ_CHUNK + 1) * size;
    const uint8_t *from[RQ_MAX_HDPC];
    rq_apply_hdpc(s, rows, size, packed, scratch, checks);
    for (size_t i = 0; i < h; i++) from[i] = checks + i * size;
    for (size_t i = 0; i < s->frees; i++) to[i] = out + i * size;
    rq_arithmetic_now()->product(to, s->frees, s->recover, h, from, h, size);
    free(scratch);
    return RQ_OK;
}

static void add_free_values(const rq_structure *s, const uint8_t *frees, size_t size, uint8_t *out) {
    const uint8_t *terms[RQ_MAX_HDPC + 1];
    for (uint32_t column = 0; column < s->code->total; column++) {
        size_t count = 0;
        terms[count++] = out + column * size;
        for (uint32_t i = 0; i < s->frees; i++) {
            if (s->mask[column] >> i & 1) terms[count++] = frees + i * size;
        }
        if (count > 1) rq_arithmetic_now()->sum(out + column * size, terms, count, size);
    }
}

int rq_solve(const rq_code *code, const uint32_t *isis, const uint8_t *const *symbols, size_t count, size_t size, uint8_t *out,
             size_t *deficiency) {
    rq_structure s;
    int status = rq_analyse(&s, code, isis, count, deficiency);
    if (status == RQ_OK) {
        values v = {symbols, size, out, NULL};
        status = binary_values(&s, &v);
    }
    if (status == RQ_OK && s.frees) {
        uint8_t *frees = malloc(s.frees * size);
        status = frees ? free_values(&s, out, size, 0, frees) : RQ_NO_MEMORY;
        if (status == RQ_OK) add_free_values(&s, frees, size, out);
        free(frees);
    }
    rq_release(&s);
    return status;
}

int rq_make_generator(const rq_code *code, uint8_t *after) {
    const size_t padded = code->padded, packed = code->packed, h = code->hdpc;
    uint8_t *bits = after + 2 * (size_t)code->total, *frees = bits + code->total * packed, *planes = frees + h * padded;
    uint8_t *units = calloc(padded, packed);
    const uint8_t **symbols = malloc(padded * sizeof *symbols);
    uint32_t *isis = malloc(padded * sizeof *isis);
    rq_structure s = {0};
    int status = RQ_NO_MEMORY;
    if (!units || !symbols || !isis) goto done;
    for (uint32_t i = 0; i < padded; i++) {
        isis[i] = i;
        units[i * packed + i / 8] = (uint8_t)(1u << (i % 8));
        symbols[i] = units + i * packed;
    }
    size_t deficiency;
    status = rq_analyse(&s, code, isis, padded, &deficiency);
    if (status != RQ_OK) goto done;
    values v = {symbols, packed, bits, NULL};
    status = binary_values(&s, &v);
    memset(frees, 0, h * (padded + 8 * packed));
    if (status == RQ_OK) status = free_values(&s, bits, padded, 1, frees);
    memcpy(after, s.mask, 2 * (size_t)code->total);
    for (size_t i = 0; i < h * padded; i++) {
        uint8_t *plane = planes + i / padded * 8 * packed;
        const size_t column = i % padded;
        for (size_t bit = 0; bit < 8; bit++) plane[bit * packed + column / 8] |= (uint8_t)((frees[i] >> bit & 1) << (column % 8));
    }
done:
    rq_release(&s);
    free(units);
    free((void *)symbols);
    free(isis);
    return status;
}
