/* What a K' fixes (RFC 6330 5.3.3.3, 5.3.5): Rand, the tuple generator, the LT rows, the LDPC rows, the taps of MT in the HDPC
   rows.

   The tables arrive in the plan's header; none are kept here. */

#include "_raptorq.h"

#include <string.h>

static uint32_t word_at(const uint8_t *from, size_t index) {
    uint32_t word;
    memcpy(&word, from + 4 * index, 4);
    return word;
}

/* Header words: K' J S H W P1, the upper limit of a degree, how many degrees; (degree, bound) x 31; 2 of padding; V0..V3. */
int rq_open(rq_code *code, const uint8_t *plan, size_t length) {
    if (length < RQ_HEADER) return RQ_INVALID;
    code->padded = word_at(plan, 0);
    code->index = word_at(plan, 1);
    code->ldpc = word_at(plan, 2);
    code->hdpc = word_at(plan, 3);
    code->lt = word_at(plan, 4);
    code->prime = word_at(plan, 5);
    code->degree_limit = word_at(plan, 6);
    code->degrees = word_at(plan, 7);
    code->degree = plan + 4 * RQ_WORDS_FIXED;
    code->rand = plan + 4 * (RQ_WORDS - 1024);
    code->masks = NULL;
    code->packed = RQ_PACKED(code->padded);
    if (code->padded < 1 || code->padded > RQ_MAX_SYMBOLS || code->index > 1000 || code->ldpc < 2 || code->ldpc > 1000 ||
        code->hdpc < 2 || code->hdpc > RQ_MAX_HDPC || code->lt <= code->ldpc || code->lt > 1000 * code->ldpc ||
        code->degrees < 1 || code->degrees > RQ_DEGREES)
        return RQ_INVALID;
    code->total = code->padded + code->ldpc + code->hdpc;
    if (code->lt + 2 > code->total) return RQ_INVALID;
    code->pi = code->total - code->lt;
    if (code->prime < code->pi || code->prime > 2000) return RQ_INVALID;
    if (length == RQ_HEADER) return RQ_OK;
    if (length != rq_plan_size(code)) return RQ_INVALID;
    code->masks = plan + RQ_HEADER;
    code->bits = code->masks + 2 * (size_t)code->total;
    code->frees = code->bits + code->total * code->packed;
    code->planes = code->frees + (size_t)code->hdpc * code->padded;
    return RQ_OK;
}

size_t rq_plan_size(const rq_code *code) {
    return RQ_HEADER + code->total * (2 + code->packed) + code->hdpc * (code->padded + 8 * code->packed);
}

/* RFC 6330 5.3.5.1 */
static uint32_t rand_of(const rq_code *code, uint32_t y, uint32_t i, uint32_t m) {
    const uint32_t v0 = word_at(code->rand, (y + i) & 255), v1 = word_at(code->rand, 256 + (((y >> 8) + i) & 255));
    const uint32_t v2 = word_at(code->rand, 512 + (((y >> 16) + i) & 255)),
                   v3 = word_at(code->rand, 768 + (((y >> 24) + i) & 255));
    return (v0 ^ v1 ^ v2 ^ v3) % m;
}

/* XOR `column` into the set of `count` columns: a second occurrence cancels the first. */
static size_t toggle(uint16_t *columns, size_t count, uint16_t column) {
    for (size_t i = 0; i < count; i++) {
        if (columns[i] == column) {
            columns[i] = columns[count - 1];
            return count - 1;
        }
    }
    columns[count] = column;
    return count + 1;
}

/* RFC 6330 5.3.5.3 and 5.3.5.4: LT columns, then PI columns. */
size_t rq_lt_row(const rq_code *code, uint32_t isi, uint16_t columns[RQ_MAX_ROW]) {
    const uint32_t w = code->lt, p = code->pi, p1 = code->prime;
    const uint32_t a = (53591u + code->index * 997u) | 1u, y = 10267u * (code->index + 1u) + isi * a;
    const uint32_t v = rand_of(code, y, 0, 1u << 20);
    uint32_t i = 0;
    while (i + 1 < code->degrees && v >= word_at(code->degree, 2 * i + 1)) i++;
    uint32_t degree = word_at(code->degree, 2 * i);
    if (degree > code->degree_limit) degree = code->degree_limit;
    if (degree > RQ_MAX_ROW - 3) degree = RQ_MAX_ROW - 3; /* nobody's table, but memory is safe with any */
    const uint32_t step = 1 + rand_of(code, y, 1, w - 1);
    uint32_t at = rand_of(code, y, 2, w);
    const uint32_t pi_degree = degree < 4 ? 2 + rand_of(code, isi, 3, 2) : 2;
    const uint32_t pi_step = 1 + rand_of(code, isi, 4, p1 - 1);
    uint32_t pi_at = rand_of(code, isi, 5, p1);

    size_t count = 0;
    for (uint32_t d = 0; d < degree; d++) {
        /* W is prime, so only a degree above W comes round again: RFC 5053's 40 where W < 40. */
        if (degree > w)
            count = toggle(columns, count, (uint16_t)at);
        else
            columns[count++] = (uint16_t)at;
        at += step;
        if (at >= w) at -= w;
    }
    for (uint32_t d = 0; d < pi_degree; d++) {
        /* P1 is prime, so it takes less than P1 steps; of a header with another P1 the result is of no use, but there is one */
        for (uint32_t steps = 0; pi_at >= p; steps++) pi_at = steps < p1 ? (pi_at + pi_step) % p1 : 0;
        columns[count++] = (uint16_t)(w + pi_at);
        pi_at = (pi_at + pi_step) % p1;
    }
    return count;
}

/* RFC 6330 5.3.3.3: G_LDPC,1 | I_S | G_LDPC,2 */
void rq_ldpc_entries(const rq_code *code, void (*entry)(void *context, uint32_t row, uint32_t column), void *context) {
    const uint32_t s = code->ldpc, b = code->lt - s;
    for (uint32_t column = 0; column < b; column++) {
        const uint32_t step = (1 + column / s) % s;
        uint32_t row = column % s;
        for (int hop = 0; hop < 3; hop++) {
            entry(context, row, column);
            row += step;
            if (row >= s) row -= s;
        }
    }
    for (uint32_t row = 0; row < s; row++) {
        entry(context, row, b + row);
        entry(context, row, code->lt + row % code->pi);
        entry(context, row, code->lt + (row + 1) % code->pi);
    }
}

/* RFC 6330 5.3.3.3: the two ones in each column of MT but the last */
void rq_hdpc_taps(const rq_code *code, uint8_t *taps) {
    for (uint32_t column = 0; column + 1 < code->padded + code->ldpc; column++) {
        const uint32_t first = rand_of(code, column + 1, 6, code->hdpc);
        taps[2 * column] = (uint8_t)first;
        taps[2 * column + 1] = (uint8_t)((first + rand_of(code, column + 1, 7, code->hdpc - 1) + 1) % code->hdpc);
    }
}
