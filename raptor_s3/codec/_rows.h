/* Repair symbols as sums of source symbols and free columns (see _rows.c), and the scratch memory of those who need them. */

#ifndef RAPTORQ_ROWS_H
#define RAPTORQ_ROWS_H

#include "_raptorq.h"

/* One allocation, cut into parts that each begin a cache line: *to, a pointer, is set to `size` octets. To be freed as a whole;
   NULL without memory. */
typedef struct {
    void *to;
    size_t size;
} rq_part;
void *rq_cut(const rq_part *parts, size_t count);
#define RQ_CUT(...) rq_cut((const rq_part[]){__VA_ARGS__}, sizeof((const rq_part[]){__VA_ARGS__}) / sizeof(rq_part))

/* Encoding symbols in terms of source symbols and free columns, with a generator. */
typedef struct {
    uint8_t *bits;   /* count x packed */
    uint16_t *masks; /* count */
    size_t count;
} rq_rows;

void rq_make_row(const rq_code *code, uint32_t isi, uint8_t *bits, uint16_t *mask);
/* to[i] = row i of `rows` times the K source symbols */
int rq_apply_rows(const rq_code *code, const rq_rows *rows, const uint8_t *const *symbols, size_t k, size_t size,
                  uint8_t *const *to);
/* Encoding symbol `isi` from the L intermediate symbols: Enc[] of 5.3.5.3 */
void rq_lt_symbol(const rq_code *code, uint32_t isi, const uint8_t *intermediate, size_t size, uint8_t *to);

#endif
