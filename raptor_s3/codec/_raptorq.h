/* The inside of the codec's C kernel: RFC 6330 arithmetic on plain buffers, without Python.

   _gf256.c    rows of octets: XOR, multiply, product; one implementation per instruction set, chosen at run time
   _code.c     what a K' fixes: Rand, Tuple, LT and LDPC rows, the HDPC rows applied
   _peeling.c  inactivation decoding, the structure: which columns are pivots, which stay free
   _solver.c   inactivation decoding, the values: intermediate symbols from encoding symbols, and plans
   _rows.c     repair symbols from source symbols, through a plan
   _encode.c   datagrams of a source block
   _decode.c   an object from datagrams
   _kernel.c   the Python face: buffers, bounds, the GIL

   Invariant: every function is total. Sizes and indices from the caller are checked before use, loops are bounded, and nothing is
   kept between calls but the read-only tables and the chosen instruction set. */

#ifndef RAPTORQ_H
#define RAPTORQ_H

#include <stddef.h>
#include <stdint.h>

enum { RQ_OK = 0, RQ_SINGULAR = 1, RQ_NO_MEMORY = -1, RQ_INVALID = -2 };

#define RQ_MAX_SYMBOLS 56403u /* K'_max, RFC 6330 5.1.2 */
#define RQ_MAX_ESI 0xFFFFFFu  /* u24, RFC 6330 3.2 */
#define RQ_MAX_HDPC 16u       /* the largest H of Table 2 */
#define RQ_MAX_ROW 48u        /* an LT row: degree at most 40 (RFC 5053) and 3 */
#define RQ_MAX_INACTIVE 4096u /* honest symbols leave about 550 at K'_max; a crafted set must not buy a cubic elimination */

/* ---- _gf256.c ---- */

#define RQ_TILE 64u                   /* octets of a row that are combined at a time */
#define RQ_TABLES (16 * 16 * RQ_TILE) /* sums of 16 groups of four rows: they lie in the first-level cache together */

/* Each nibble of `bits`, times 16, in an octet; the lowest first. */
static inline uint64_t rq_picks(uint32_t bits) {
    uint64_t x = bits;
    x = (x | x << 16) & 0x0000FFFF0000FFFFu;
    x = (x | x << 8) & 0x00FF00FF00FF00FFu;
    return (x << 4 & 0x00F000F000F000F0u) | (x << 8 & 0xF000F000F000F000u);
}

/* Repair rows: sums of source rows, picked by bits, and of free columns, picked by masks. Picks are made by rq_picks: word w of
   row i, for source rows 32w to 32w + 31, lies at w * (repairs + planes) + i. The free columns are rows, or else eight more rows
   of picks each: the bit planes of its GF(256) coefficients, the lowest first. */
typedef struct {
    const uint8_t *const *rows;           /* 32 * words pointers */
    size_t words, repairs, frees, planes; /* planes: 8 * frees or 0 */
    const uint64_t *picks;
    const uint16_t *masks;           /* of each repair row */
    const uint8_t *const *free_rows; /* not read where there are planes */
    uint8_t *tables;                 /* scratch: RQ_TABLES */
    uint8_t *sums;                   /* scratch: (repairs + planes) * RQ_TILE */
} rq_combination;

typedef struct {
    const char *name;
    size_t combine_from; /* so many repair rows pay for `combine` */
    int prefers_planes;  /* GF(256) rows as bit planes in `combine`, rather than by `product` */
    /* dst = sum of `count` rows; dst may be one of them */
    void (*sum)(uint8_t *dst, const uint8_t *const *rows, size_t count, size_t size);
    /* dst += c * row */
    void (*multiply_add)(uint8_t *dst, const uint8_t *row, uint8_t c, size_t size);
    /* out[i] = sum over j of coefficients[i * stride + j] * rows[j]; out must not overlap rows */
    void (*product)(uint8_t *const *out, size_t count, const uint8_t *coefficients, size_t stride, const uint8_t *const *rows,
                    size_t terms, size_t size);
    /* For j < count: running = 2 * running + row j, added to checks taps[2j] and taps[2j + 1]: MT * GAMMA of 5.3.3.3 */
    void (*accumulate)(uint8_t *checks, const uint8_t *taps, const uint8_t *rows, size_t count, uint8_t *running, size_t size);
    /* out[i] = repair row i; size is at least RQ_TILE; out must not overlap rows */
    void (*combine)(uint8_t *const *out, const rq_combination *combination, size_t size);
} rq_arithmetic;

void rq_initialise(void);
const rq_arithmetic *rq_arithmetic_now(void);
const rq_arithmetic *rq_arithmetic_at(size_t index); /* those that this CPU can run, best first; NULL past the last */
void rq_choose(const rq_arithmetic *arithmetic);
uint8_t rq_multiply(uint8_t a, uint8_t b);
uint8_t rq_inverse(uint8_t a);
void rq_unpack(uint8_t *octets, const uint8_t *bits, size_t count); /* one octet, 0 or 1, per bit */

/* ---- _code.c ---- */

/* A plan is a buffer: header, and, unless it is the header alone, the generator: how each intermediate symbol is made of the K'
   source symbols.

     header   native u32 words, built in Python from RFC 6330's tables
     masks    L x u16: the free columns in intermediate symbol c
     bits     L x RQ_PACKED(K') octets: the source symbols in it
     frees    H x K' octets: each free column in the source symbols, over GF(256)
     planes   H x 8 x RQ_PACKED(K') octets: the same, as bit planes, the lowest first */
#define RQ_PACKED(count) (((size_t)(count) + 63) / 64 * 8)

enum { RQ_WORDS_FIXED = 8, RQ_DEGREES = 31, RQ_WORDS = RQ_WORDS_FIXED + 2 * RQ_DEGREES + 2 + 1024, RQ_HEADER = 4 * RQ_WORDS };

typedef struct {
    uint32_t padded, index, ldpc, hdpc, lt, pi, prime, total; /* K' J S H W P P1 L */
    uint32_t degree_limit, degrees;
    const uint8_t *degree; /* (degree, bound) pairs */
    const uint8_t *rand;   /* V0..V3 */
    const uint8_t *masks;  /* NULL: no generator */
    const uint8_t *bits, *frees, *planes;
    size_t packed; /* RQ_PACKED(K') */
} rq_code;

size_t rq_plan_size(const rq_code *code); /* with a generator */
int rq_open(rq_code *code, const uint8_t *plan, size_t length);
size_t rq_lt_row(const rq_code *code, uint32_t isi, uint16_t columns[RQ_MAX_ROW]);
/* The LDPC rows as (row, column) pairs, one call each. */
void rq_ldpc_entries(const rq_code *code, void (*entry)(void *context, uint32_t row, uint32_t column), void *context);
void rq_hdpc_taps(const rq_code *code, uint8_t *taps); /* 2 * (K' + S - 1) */

/* ---- _solver.c ---- */

/* after: what follows the header in a plan with a generator */
int rq_make_generator(const rq_code *code, uint8_t *after);
/* out: L x size octets. symbols[i]: encoding symbol isis[i], NULL for zeros. RQ_SINGULAR sets *deficiency to how many more
 * symbols are needed at least. */
int rq_solve(const rq_code *code, const uint32_t *isis, const uint8_t *const *symbols, size_t count, size_t size, uint8_t *out,
             size_t *deficiency);

/* ---- _encode.c ---- */

typedef struct {
    const uint8_t *data; /* the source block, `length` octets: K - 1 whole symbols and one that may be short */
    size_t length, symbols, size;
} rq_source;

typedef struct {
    uint8_t *at; /* first slot */
    size_t stride;
    const uint8_t *prefix;
    size_t prefix_length;
    uint32_t sbn, first_esi, count;
} rq_slots;

/* intermediate: L x size octets; not read where the plan has a generator */
int rq_write_packets(const rq_code *code, const uint8_t *intermediate, const rq_source *source, const rq_slots *slots);
int rq_make_intermediate(const rq_code *code, const rq_source *source, uint8_t *out);

/* ---- _decode.c ---- */

typedef struct {
    uint8_t *at; /* first symbol */
    size_t stride, count;
    int may_overwrite;    /* the symbols' memory may be used for the result */
    const uint32_t *esis; /* at most 2^24 - 1 each, of the only source block; NULL: the payload id lies before each symbol */
} rq_received;

/* `length` octets, cut into ceil(length / size) symbols, at least one, and these into blocks: Partition of 4.4.1.2 */
typedef struct {
    size_t length, size, symbols, blocks;
    size_t least, longer; /* symbols of the last block; how many blocks at the front have one more */
} rq_object;

#define RQ_MAX_BLOCKS 255u

typedef struct {
    uint8_t *(*make)(void *context); /* memory for the object, asked for once, when nearly all else is done; NULL without */
    void *context;
    uint8_t *out;                   /* that memory, or NULL */
    size_t distinct[RQ_MAX_BLOCKS]; /* symbols of each block */
    size_t missing;                 /* 0, or how many more are needed at least */
} rq_result;

/* longer, shorter: the codes of blocks of least + 1 and of `least` symbols. RQ_SINGULAR where symbols are missing. */
int rq_decode(const rq_code *longer, const rq_code *shorter, const rq_received *received, const rq_object *object,
              rq_result *result);

#endif
