/* What peeling and elimination find out about a set of ISIs, before any symbol is touched (see _peeling.c). */

#ifndef RAPTORQ_PEELING_H
#define RAPTORQ_PEELING_H

#include "_raptorq.h"

#define RQ_NONE UINT32_MAX

typedef struct {
    const rq_code *code;
    uint32_t rows; /* S LDPC rows, then one LT row per symbol */
    uint32_t *start;
    uint16_t *columns; /* of row r: columns[start[r]] .. columns[start[r + 1] - 1] */
    uint32_t longest;

    uint32_t *pivot_row, *pivot_column, pivots; /* in the order in which they become known */
    uint32_t *inactive, inactives;              /* columns */
    uint32_t *left, lefts;                      /* rows that are no pivot's */
    uint32_t *place;                            /* of column c in `inactive`, or NONE */

    uint64_t *bits; /* left x bit_words: the row in inactive columns */
    size_t bit_words;
    uint64_t *mix; /* left x mix_words: which rows left over add up to this one */
    size_t mix_words;
    uint32_t *solved_by; /* of inactive column u: the row left over, or NONE if it is free */
    uint32_t free_columns[RQ_MAX_HDPC], frees;
    uint16_t *mask;                             /* of each column: its free columns */
    uint8_t recover[RQ_MAX_HDPC * RQ_MAX_HDPC]; /* free columns from the H checks */
    uint8_t *taps;
} rq_structure;

/* RQ_SINGULAR sets *deficiency. rq_release frees what was made, after whatever result. */
int rq_analyse(rq_structure *s, const rq_code *code, const uint32_t *isis, size_t count, size_t *deficiency);
void rq_release(rq_structure *s);

/* The H HDPC rows applied to L rows of `size` octets, or, if `packed`, of bits that stand for `size` octets. checks is H x size;
   scratch is (RQ_CHUNK + 1) x size. */
#define RQ_CHUNK 32u
void rq_apply_hdpc(const rq_structure *s, const uint8_t *rows, size_t size, int packed, uint8_t *scratch, uint8_t *checks);

static inline int rq_has_bit(const uint64_t *bits, uint32_t at) { return bits[at / 64] >> (at % 64) & 1; }

#endif
