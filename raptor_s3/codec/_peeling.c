/* Inactivation decoding (RFC 6330 5.4.2), the structure: how A * C = D can be solved. It depends on the ISIs alone and tells
   whether A has full rank; only then does _solver.c touch a symbol.

   1. peel       a binary row with one active column makes that column a pivot; with no such row, a column is made inactive
   2. bits       each pivot as a sum of inactive columns; the rows left over become a dense binary system in them
   3. eliminate  that system: at most H columns stay free, each other inactive column is a sum of rows left over, plus free
   columns
   4. masks      each column's free columns; the HDPC rows, applied to them by Horner's rule, give H equations over GF(256):
   invert them

   The HDPC rows are dense and the only ones over GF(256); so they cost one pass. */

#include "_peeling.h"

#include <stdlib.h>
#include <string.h>

static void *allocate(size_t count, size_t size) { return calloc(count ? count : 1, size); }

void rq_release(rq_structure *s) {
    free(s->start);
    free(s->columns);
    free(s->pivot_row);
    free(s->pivot_column);
    free(s->inactive);
    free(s->left);
    free(s->place);
    free(s->bits);
    free(s->mix);
    free(s->solved_by);
    free(s->mask);
    free(s->taps);
}

/* ---- rows ---- */

typedef struct {
    uint32_t *next;
    uint16_t *columns; /* NULL: count only */
} filling;

static void ldpc_entry(void *context, uint32_t row, uint32_t column) {
    filling *f = context;
    if (f->columns) f->columns[f->next[row]] = (uint16_t)column;
    f->next[row]++;
}

static int make_rows(rq_structure *s, const uint32_t *isis, size_t count) {
    const rq_code *code = s->code;
    const uint32_t ldpc = code->ldpc;
    s->rows = ldpc + (uint32_t)count;
    s->start = allocate(s->rows + 1u, sizeof *s->start);
    uint32_t *next = allocate(ldpc, sizeof *next);
    if (!s->start || !next) goto no_memory;

    filling f = {next, NULL};
    rq_ldpc_entries(code, ldpc_entry, &f);
    for (uint32_t row = 0; row < ldpc; row++) {
        s->start[row + 1] = s->start[row] + next[row];
        next[row] = s->start[row];
    }
    size_t capacity = s->start[ldpc] + 8 * count + RQ_MAX_ROW;
    s->columns = allocate(capacity, sizeof *s->columns);
    if (!s->columns) goto no_memory;
    f.columns = s->columns;
    rq_ldpc_entries(code, ldpc_entry, &f);
    free(next);
    next = NULL;

    for (uint32_t row = ldpc; row < s->rows; row++) {
        const size_t at = s->start[row];
        if (at + RQ_MAX_ROW > capacity) {
            capacity += capacity / 2 + RQ_MAX_ROW;
            uint16_t *larger = realloc(s->columns, capacity * sizeof *larger);
            if (!larger) goto no_memory;
            s->columns = larger;
        }
        s->start[row + 1] = (uint32_t)(at + rq_lt_row(code, isis[row - ldpc], s->columns + at));
    }
    for (uint32_t row = 0; row < s->rows; row++) {
        if (s->start[row + 1] - s->start[row] > s->longest) s->longest = s->start[row + 1] - s->start[row];
    }
    return RQ_OK;
no_memory:
    free(next);
    return RQ_NO_MEMORY;
}

/* ---- 1. peel ---- */

typedef struct {
    uint32_t *first, *user; /* rows that hold LT column c: user[first[c]] .. */
    uint16_t *weight;       /* active columns of a row (saturating at 65,535 would need W > 65,535) */
    uint16_t *active_sum;   /* XOR of them: with one left, it is that one */
    uint32_t *ready, readies, *pairs, pair_count;
    uint16_t *votes;
    uint8_t *gone; /* LT column: pivot or inactive */
} peeling;

static void leave(peeling *p, uint32_t column) {
    p->gone[column] = 1;
    for (uint32_t i = p->first[column]; i < p->first[column + 1]; i++) {
        const uint32_t row = p->user[i];
        p->active_sum[row] ^= (uint16_t)column;
        const uint16_t weight = --p->weight[row];
        if (weight == 1)
            p->ready[p->readies++] = row;
        else if (weight == 2)
            p->pairs[p->pair_count++] = row;
    }
}

/* The column that most rows of weight 2 share: without it they all become pivots. Failing these, one of a lightest row. */
static uint32_t choose_inactive(const rq_structure *s, peeling *p, uint32_t *scan) {
    uint32_t kept = 0, best = RQ_NONE, best_votes = 0;
    for (uint32_t i = 0; i < p->pair_count; i++) {
        const uint32_t row = p->pairs[i];
        if (p->weight[row] != 2) continue;
        p->pairs[kept++] = row;
        for (uint32_t k = s->start[row]; k < s->start[row + 1]; k++) {
            const uint16_t column = s->columns[k];
            if (column >= s->code->lt || p->gone[column]) continue;
            if (++p->votes[column] > best_votes) {
                best_votes = p->votes[column];
                best = column;
            }
        }
    }
    p->pair_count = kept;
    for (uint32_t i = 0; i < kept; i++) {
        for (uint32_t k = s->start[p->pairs[i]]; k < s->start[p->pairs[i] + 1]; k++) {
            if (s->columns[k] < s->code->lt) p->votes[s->columns[k]] = 0;
        }
    }
    if (best != RQ_NONE) return best;

    uint32_t lightest = RQ_NONE;
    for (uint32_t row = 0; row < s->rows; row++) {
        if (p->weight[row] > 1 && (lightest == RQ_NONE || p->weight[row] < p->weight[lightest])) lightest = row;
    }
    if (lightest != RQ_NONE) {
        for (uint32_t k = s->start[lightest]; k < s->start[lightest + 1]; k++) {
            if (s->columns[k] < s->code->lt && !p->gone[s->columns[k]]) return s->columns[k];
        }
    }
    while (p->gone[*scan]) ++*scan;
    return *scan;
}

static int peel(rq_structure *s) {
    const uint32_t lt = s->code->lt, total = s->code->total;
    int status = RQ_NO_MEMORY;
    uint8_t *used = allocate(s->rows, 1);
    peeling p = {
        .first = allocate(lt + 1u, sizeof(uint32_t)),
        .user = allocate(s->start[s->rows], sizeof(uint32_t)),
        .weight = allocate(s->rows, sizeof(uint16_t)),
        .active_sum = allocate(s->rows, sizeof(uint16_t)),
        .ready = allocate(s->rows, sizeof(uint32_t)),
        .pairs = allocate(s->rows, sizeof(uint32_t)),
        .votes = allocate(lt, sizeof(uint16_t)),
        .gone = allocate(lt, 1),
    };
    s->pivot_row = allocate(lt, sizeof(uint32_t));
    s->pivot_column = allocate(lt, sizeof(uint32_t));
    s->inactive = allocate(total, sizeof(uint32_t));
    s->left = allocate(s->rows, sizeof(uint32_t));
    s->place = allocate(total, sizeof(uint32_t));
    if (!used || !p.first || !p.user || !p.weight || !p.active_sum || !p.ready || !p.pairs || !p.votes || !p.gone ||
        !s->pivot_row || !s->pivot_column || !s->inactive || !s->left || !s->place)
        goto done;

    for (uint32_t row = 0; row < s->rows; row++) {
        for (uint32_t k = s->start[row]; k < s->start[row + 1]; k++) {
            const uint16_t column = s->columns[k];
            if (column >= lt) continue;
            p.first[column + 1]++;
            p.weight[row]++;
            p.active_sum[row] ^= column;
        }
        if (p.weight[row] == 1)
            p.ready[p.readies++] = row;
        else if (p.weight[row] == 2)
            p.pairs[p.pair_count++] = row;
    }
    for (uint32_t column = 0; column < lt; column++) p.first[column + 1] += p.first[column];
    for (uint32_t row = s->rows; row-- > 0;) {
        for (uint32_t k = s->start[row]; k < s->start[row + 1]; k++) {
            if (s->columns[k] < lt) p.user[--p.first[s->columns[k] + 1u]] = row;
        }
    }
    /* first[c + 1] now holds the start of c */
    memmove(p.first, p.first + 1, lt * sizeof *p.first);
    p.first[lt] = 0;
    for (uint32_t row = 0; row < s->rows; row++) {
        for (uint32_t k = s->start[row]; k < s->start[row + 1]; k++) p.first[lt] += s->columns[k] < lt;
    }

    uint32_t scan = 0;
    status = RQ_OK;
    while (s->pivots + s->inactives < lt) {
        if (p.readies) {
            const uint32_t row = p.ready[--p.readies];
            const uint32_t column = p.active_sum[row];
            if (p.weight[row] != 1 || used[row] || column >= lt || p.gone[column]) continue;
            used[row] = 1;
            s->pivot_row[s->pivots] = row;
            s->pivot_column[s->pivots++] = column;
            leave(&p, column);
        } else {
            if (s->inactives + s->code->pi >= RQ_MAX_INACTIVE) {
                status = RQ_SINGULAR;
                goto done;
            }
            const uint32_t column = choose_inactive(s, &p, &scan);
            s->inactive[s->inactives++] = column;
            leave(&p, column);
        }
    }
    for (uint32_t column = lt; column < total; column++) s->inactive[s->inactives++] = column;
    for (uint32_t column = 0; column < total; column++) s->place[column] = RQ_NONE;
    for (uint32_t u = 0; u < s->inactives; u++) s->place[s->inactive[u]] = u;
    for (uint32_t row = 0; row < s->rows; row++) {
        if (!used[row]) s->left[s->lefts++] = row;
    }
done:
    free(used);
    free(p.first);
    free(p.user);
    free(p.weight);
    free(p.active_sum);
    free(p.ready);
    free(p.pairs);
    free(p.votes);
    free(p.gone);
    return status;
}

/* ---- 2. and 3. the dense binary system ---- */

static void add_row_bits(const rq_structure *s, const uint64_t *known, uint32_t row, uint32_t skip, uint64_t *bits) {
    for (uint32_t k = s->start[row]; k < s->start[row + 1]; k++) {
        const uint32_t column = s->columns[k];
        if (column == skip) continue;
        const uint32_t u = s->place[column];
        if (u != RQ_NONE) {
            bits[u / 64] ^= (uint64_t)1 << (u % 64);
        } else {
            for (size_t i = 0; i < s->bit_words; i++) bits[i] ^= known[column * s->bit_words + i];
        }
    }
}

static int make_bits(rq_structure *s) {
    s->bit_words = (s->inactives + 63) / 64;
    s->mix_words = (s->lefts + 63) / 64;
    uint64_t *known = allocate(s->code->lt, s->bit_words * 8);
    s->bits = allocate(s->lefts, s->bit_words * 8);
    s->mix = allocate(s->lefts, s->mix_words * 8);
    if (!known || !s->bits || !s->mix) {
        free(known);
        return RQ_NO_MEMORY;
    }
    for (uint32_t i = 0; i < s->pivots; i++)
        add_row_bits(s, known, s->pivot_row[i], s->pivot_column[i], known + s->pivot_column[i] * s->bit_words);
    for (uint32_t i = 0; i < s->lefts; i++) {
        add_row_bits(s, known, s->left[i], RQ_NONE, s->bits + i * s->bit_words);
        s->mix[i * s->mix_words + i / 64] = (uint64_t)1 << (i % 64);
    }
    free(known);
    return RQ_OK;
}

/* Gauss-Jordan. A row that has been chosen is marked in `taken`; rows keep their places. */
static int eliminate_bits(rq_structure *s, size_t *deficiency) {
    uint8_t *taken = allocate(s->lefts, 1);
    s->solved_by = allocate(s->inactives, sizeof *s->solved_by);
    if (!taken || !s->solved_by) {
        free(taken);
        return RQ_NO_MEMORY;
    }
    size_t frees = 0;
    for (uint32_t u = 0; u < s->inactives; u++) {
        uint32_t pivot = 0;
        while (pivot < s->lefts && (taken[pivot] || !rq_has_bit(s->bits + pivot * s->bit_words, u))) pivot++;
        if (pivot == s->lefts) {
            s->solved_by[u] = RQ_NONE;
            if (frees < RQ_MAX_HDPC) s->free_columns[frees] = u;
            frees++;
            continue;
        }
        taken[pivot] = 1;
        s->solved_by[u] = pivot;
        const uint64_t *bits = s->bits + pivot * s->bit_words, *mix = s->mix + pivot * s->mix_words;
        for (uint32_t i = 0; i < s->lefts; i++) {
            if (i == pivot || !rq_has_bit(s->bits + i * s->bit_words, u)) continue;
            for (size_t k = u / 64; k < s->bit_words; k++) s->bits[i * s->bit_words + k] ^= bits[k];
            for (size_t k = 0; k < s->mix_words; k++) s->mix[i * s->mix_words + k] ^= mix[k];
        }
    }
    free(taken);
    if (frees > s->code->hdpc) {
        *deficiency = frees - s->code->hdpc;
        return RQ_SINGULAR;
    }
    s->frees = (uint32_t)frees;
    return RQ_OK;
}

/* ---- 4. the free columns ---- */

/* recover = the left inverse of the H x f matrix: `system` is H x (f + H), its right half the identity. */
static int invert(rq_structure *s, uint8_t *system, size_t *deficiency) {
    const uint32_t h = s->code->hdpc, f = s->frees, width = f + h;
    uint32_t rank = 0;
    for (uint32_t column = 0; column < f; column++) {
        uint32_t pivot = rank;
        while (pivot < h && !system[pivot * width + column]) pivot++;
        if (pivot == h) continue;
        uint8_t *to = system + rank * width, moved[2 * RQ_MAX_HDPC]; /* the others keep their order: the first equations count */
        memcpy(moved, system + pivot * width, width);
        memmove(to + width, to, (pivot - rank) * width);
        memcpy(to, moved, width);
        const uint8_t scale = rq_inverse(system[rank * width + column]);
        for (uint32_t k = 0; k < width; k++) system[rank * width + k] = rq_multiply(scale, system[rank * width + k]);
        for (uint32_t row = 0; row < h; row++) {
            const uint8_t factor = system[row * width + column];
            if (row == rank || !factor) continue;
            for (uint32_t k = 0; k < width; k++) system[row * width + k] ^= rq_multiply(factor, system[rank * width + k]);
        }
        rank++;
    }
    if (rank < f) {
        *deficiency = f - rank;
        return RQ_SINGULAR;
    }
    for (uint32_t row = 0; row < f; row++) memcpy(s->recover + row * h, system + row * width + f, h);
    return RQ_OK;
}

/* RFC 6330 5.3.3.3: MT * GAMMA | I_H. MT * GAMMA is a running sum, doubled at each column; MT has two ones in each column but the
   last, which holds the powers of alpha. */
void rq_apply_hdpc(const rq_structure *s, const uint8_t *rows, size_t size, int packed, uint8_t *scratch, uint8_t *checks) {
    const rq_code *code = s->code;
    const rq_arithmetic *gf = rq_arithmetic_now();
    const size_t last = code->padded + code->ldpc - 1u, stride = packed ? RQ_PACKED(size) : size;
    uint8_t *running = scratch + RQ_CHUNK * size;
    memset(running, 0, size);
    memset(checks, 0, code->hdpc * size);
    for (size_t row = 0; row < code->total; row += RQ_CHUNK) {
        const size_t end = row + RQ_CHUNK < code->total ? row + RQ_CHUNK : code->total;
        const uint8_t *chunk = rows + row * stride;
        if (packed) {
            for (size_t i = row; i < end; i++) rq_unpack(scratch + (i - row) * size, rows + i * stride, size);
            chunk = scratch;
        }
        if (row < last) gf->accumulate(checks, s->taps + 2 * row, chunk, (end < last ? end : last) - row, running, size);
        for (size_t i = row < last ? last : row; i < end; i++) {
            const uint8_t *octets = chunk + (i - row) * size;
            if (i > last) {
                gf->multiply_add(checks + (i - last - 1) * size, octets, 1, size);
                continue;
            }
            gf->multiply_add(running, running, 3, size); /* 2x = x + 3x */
            gf->multiply_add(running, octets, 1, size);
            uint8_t power = 1;
            for (uint32_t k = 0; k < code->hdpc; k++, power = rq_multiply(power, 2))
                gf->multiply_add(checks + k * size, running, power, size);
        }
    }
}

static int make_masks(rq_structure *s, size_t *deficiency) {
    const uint32_t total = s->code->total, h = s->code->hdpc, f = s->frees;
    s->mask = allocate(total, sizeof *s->mask);
    s->taps = allocate(2u * (s->code->padded + s->code->ldpc), 1);
    uint8_t *unpacked = allocate(total, RQ_MAX_HDPC);
    if (!s->mask || !s->taps || !unpacked) {
        free(unpacked);
        return RQ_NO_MEMORY;
    }
    for (uint32_t u = 0; u < s->inactives; u++) {
        uint16_t mask = 0;
        for (uint32_t i = 0; i < f; i++) {
            const int in = s->solved_by[u] == RQ_NONE ? s->free_columns[i] == u
                                                      : rq_has_bit(s->bits + s->solved_by[u] * s->bit_words, s->free_columns[i]);
            mask |= (uint16_t)(in << i);
        }
        s->mask[s->inactive[u]] = mask;
    }
    for (uint32_t i = 0; i < s->pivots; i++) {
        uint16_t mask = 0;
        for (uint32_t k = s->start[s->pivot_row[i]]; k < s->start[s->pivot_row[i] + 1]; k++) {
            if (s->columns[k] != s->pivot_column[i]) mask ^= s->mask[s->columns[k]];
        }
        s->mask[s->pivot_column[i]] = mask;
    }
    rq_hdpc_taps(s->code, s->taps);
    for (uint32_t column = 0; column < total; column++) {
        for (uint32_t i = 0; i < f; i++) unpacked[column * RQ_MAX_HDPC + i] = s->mask[column] >> i & 1;
    }
    uint8_t scratch[(RQ_CHUNK + 1) * RQ_MAX_HDPC], checks[RQ_MAX_HDPC * RQ_MAX_HDPC], system[RQ_MAX_HDPC * 2 * RQ_MAX_HDPC] = {0};
    rq_apply_hdpc(s, unpacked, RQ_MAX_HDPC, 0, scratch, checks);
    free(unpacked);
    for (uint32_t i = 0; i < h; i++) {
        memcpy(system + i * (f + h), checks + i * RQ_MAX_HDPC, f);
        system[i * (f + h) + f + i] = 1;
    }
    return invert(s, system, deficiency);
}

int rq_analyse(rq_structure *s, const rq_code *code, const uint32_t *isis, size_t count, size_t *deficiency) {
    *s = (rq_structure){.code = code};
    *deficiency = 1;
    if (count < code->padded) {
        *deficiency = code->padded - count;
        return RQ_SINGULAR;
    }
    if (count > RQ_MAX_ESI) return RQ_INVALID;
    int status = make_rows(s, isis, count);
    if (status == RQ_OK) status = peel(s);
    if (status == RQ_OK) status = make_bits(s);
    if (status == RQ_OK) status = eliminate_bits(s, deficiency);
    if (status == RQ_OK) status = make_masks(s, deficiency);
    return status;
}
