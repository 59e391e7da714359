/* Rows of octets over GF(256), once per instruction set: included by _gf256.c with these defined.

   FN(name)    the name with its suffix
   NARROW(name)  the next narrower implementation
   TARGET      function attribute
   V, WIDTH    a vector and its octets; LOAD, STORE, XOR, ZERO; DOUBLE(x) is 2 * x in the field
   PREPARED    what is derived once per source vector: PREPARE(x)
   FACTOR      what is derived once per coefficient: FACTOR_OF(c)
   ADD_PRODUCT(sum, prepared, factor)  sum + c * x; optionally ADD_PRODUCTS, two of them at once
   ROWS, COLS  the tile of a product that stays in registers
   VECTORS     RQ_TILE / WIDTH
   IN_REGISTER the constraint of inline assembly for a V; optional

   Rows need no alignment. The end of a row is one more vector that overlaps the one before; rows shorter than a vector go to
   the narrower implementation. */

/* RQ_SMALL: little code rather than fast code, for the sanitizers, which take a minute for the other. */
#if defined(RQ_SMALL) || !(defined(__GNUC__) || defined(__clang__))
#define UNROLL
#define INLINE static inline TARGET
#else
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline)) TARGET
#endif

/* GCC would reorder a long sum so that its terms no longer fit the registers. */
#if defined(__GNUC__) && !defined(__clang__) && defined(IN_REGISTER)
#define KEEP(v) __asm__("" : "+" IN_REGISTER(v))
#else
#define KEEP(v) (void)0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) (void)0
#endif

/* A short loop whose bound is constant where it is inlined: unrolled, so that arrays become registers. */
#define EACH(i, bound) UNROLL for (int i = 0; i < (bound); i++)

static TARGET void FN(sum)(uint8_t *dst, const uint8_t *const *rows, size_t count, size_t size) {
    if (size < WIDTH) {
        NARROW(sum)(dst, rows, count, size);
        return;
    }
    /* The end first: dst may be one of the rows, and the body overwrites part of what the end reads. */
    V end = ZERO();
    for (size_t j = 0; j < count; j++) end = XOR(end, LOAD(rows[j] + size - WIDTH));
    size_t at = 0;
    for (; at + 4 * WIDTH <= size; at += 4 * WIDTH) {
        V a = ZERO(), b = ZERO(), c = ZERO(), d = ZERO();
        for (size_t j = 0; j < count; j++) {
            const uint8_t *row = rows[j] + at;
            a = XOR(a, LOAD(row));
            b = XOR(b, LOAD(row + WIDTH));
            c = XOR(c, LOAD(row + 2 * WIDTH));
            d = XOR(d, LOAD(row + 3 * WIDTH));
        }
        STORE(dst + at, a);
        STORE(dst + at + WIDTH, b);
        STORE(dst + at + 2 * WIDTH, c);
        STORE(dst + at + 3 * WIDTH, d);
    }
    for (; at + WIDTH <= size; at += WIDTH) {
        V a = ZERO();
        for (size_t j = 0; j < count; j++) a = XOR(a, LOAD(rows[j] + at));
        STORE(dst + at, a);
    }
    STORE(dst + size - WIDTH, end);
}

static TARGET void FN(multiply_add)(uint8_t *dst, const uint8_t *row, uint8_t c, size_t size) {
    if (size < WIDTH) {
        NARROW(multiply_add)(dst, row, c, size);
        return;
    }
    const FACTOR factor = FACTOR_OF(c);
    V end = ADD_PRODUCT(LOAD(dst + size - WIDTH), PREPARE(LOAD(row + size - WIDTH)), factor);
    for (size_t at = 0; at + WIDTH <= size; at += WIDTH)
        STORE(dst + at, ADD_PRODUCT(LOAD(dst + at), PREPARE(LOAD(row + at)), factor));
    STORE(dst + size - WIDTH, end);
}

/* `count` <= ROWS rows of the product, `cols` <= COLS vectors of each. Both are constants where this is inlined. */
INLINE void FN(tile)(uint8_t *const *out, const int count, const uint8_t *coefficients, size_t stride, const uint8_t *const *rows,
                     size_t terms, size_t at, const int cols) {
    V sums[ROWS][COLS];
    EACH (i, count) {
        EACH (k, cols) sums[i][k] = ZERO();
    }
    size_t j = 0;
#ifdef ADD_PRODUCTS
    for (; j + 2 <= terms; j += 2) {
        PREPARED first[COLS], second[COLS];
        EACH (k, cols) {
            first[k] = PREPARE(LOAD(rows[j] + at + (size_t)k * WIDTH));
            second[k] = PREPARE(LOAD(rows[j + 1] + at + (size_t)k * WIDTH));
        }
        EACH (i, count) {
            const uint8_t *pair = coefficients + (size_t)i * stride + j;
            const FACTOR f = FACTOR_OF(pair[0]), g = FACTOR_OF(pair[1]);
            EACH (k, cols) sums[i][k] = ADD_PRODUCTS(sums[i][k], first[k], f, second[k], g);
        }
    }
#endif
    for (; j < terms; j++) {
        PREPARED prepared[COLS];
        EACH (k, cols) prepared[k] = PREPARE(LOAD(rows[j] + at + (size_t)k * WIDTH));
        EACH (i, count) {
            const FACTOR factor = FACTOR_OF(coefficients[(size_t)i * stride + j]);
            EACH (k, cols) sums[i][k] = ADD_PRODUCT(sums[i][k], prepared[k], factor);
        }
    }
    EACH (i, count) {
        EACH (k, cols) STORE(out[i] + at + (size_t)k * WIDTH, sums[i][k]);
    }
}

INLINE void FN(strip)(uint8_t *const *out, const int count, const uint8_t *coefficients, size_t stride,
                      const uint8_t *const *rows, size_t terms, size_t size) {
    size_t at = 0;
    for (; at + COLS * WIDTH <= size; at += COLS * WIDTH) FN(tile)(out, count, coefficients, stride, rows, terms, at, COLS);
    for (; at + WIDTH <= size; at += WIDTH) FN(tile)(out, count, coefficients, stride, rows, terms, at, 1);
    if (at < size) FN(tile)(out, count, coefficients, stride, rows, terms, size - WIDTH, 1);
}

static TARGET void FN(product)(uint8_t *const *out, size_t count, const uint8_t *coefficients, size_t stride,
                               const uint8_t *const *rows, size_t terms, size_t size) {
    if (size < WIDTH) {
        NARROW(product)(out, count, coefficients, stride, rows, terms, size);
        return;
    }
    for (size_t strips = (count + ROWS - 1) / ROWS; strips; strips--) { /* of nearly equal height */
        const size_t height = (count + strips - 1) / strips;
        switch (height) {
#if ROWS > 6
        case 7: FN(strip)(out, 7, coefficients, stride, rows, terms, size); break;
#endif
#if ROWS > 4
        case 6: FN(strip)(out, 6, coefficients, stride, rows, terms, size); break;
        case 5: FN(strip)(out, 5, coefficients, stride, rows, terms, size); break;
#endif
        case 4: FN(strip)(out, 4, coefficients, stride, rows, terms, size); break;
        case 3: FN(strip)(out, 3, coefficients, stride, rows, terms, size); break;
        case 2: FN(strip)(out, 2, coefficients, stride, rows, terms, size); break;
        default: FN(strip)(out, 1, coefficients, stride, rows, terms, size); break;
        }
        out += height;
        coefficients += height * stride;
        count -= height;
    }
}

INLINE void FN(accumulate_at)(uint8_t *checks, const uint8_t *taps, const uint8_t *rows, size_t count, uint8_t *running,
                              size_t size, size_t at, const int cols) {
    V sums[COLS];
    EACH (k, cols) sums[k] = LOAD(running + at + (size_t)k * WIDTH);
    for (size_t j = 0; j < count; j++) {
        const uint8_t *row = rows + j * size + at;
        uint8_t *first = checks + taps[2 * j] * size + at, *second = checks + taps[2 * j + 1] * size + at;
        EACH (k, cols) {
            const size_t o = (size_t)k * WIDTH;
            sums[k] = XOR(DOUBLE(sums[k]), LOAD(row + o));
            STORE(first + o, XOR(LOAD(first + o), sums[k]));
            STORE(second + o, XOR(LOAD(second + o), sums[k]));
        }
    }
    EACH (k, cols) STORE(running + at + (size_t)k * WIDTH, sums[k]);
}

static TARGET void FN(accumulate_from)(uint8_t *checks, const uint8_t *taps, const uint8_t *rows, size_t count, uint8_t *running,
                                       size_t size, size_t at) {
    for (; at + WIDTH <= size; at += WIDTH) FN(accumulate_at)(checks, taps, rows, count, running, size, at, 1);
    if (at < size) NARROW(accumulate_from)(checks, taps, rows, count, running, size, at);
}

static TARGET void FN(accumulate)(uint8_t *checks, const uint8_t *taps, const uint8_t *rows, size_t count, uint8_t *running,
                                  size_t size) {
    size_t at = 0;
    for (; at + COLS * WIDTH <= size; at += COLS * WIDTH) FN(accumulate_at)(checks, taps, rows, count, running, size, at, COLS);
    FN(accumulate_from)(checks, taps, rows, count, running, size, at);
}

/* Four Russians: the sixteen sums of each four rows are made once per tile, and a row of bits picks one per nibble. */
#define TABLE (16 * RQ_TILE)

/* The sums of four rows, from `at` on; the empty sum, entry 0, is there already. */
INLINE void FN(make_sums)(uint8_t *table, const uint8_t *const *rows, size_t at) {
    EACH (k, VECTORS) {
        const size_t o = (size_t)k * WIDTH;
        uint8_t *entry = table + o;
        const V a = LOAD(rows[0] + at + o), b = LOAD(rows[1] + at + o), c = LOAD(rows[2] + at + o), d = LOAD(rows[3] + at + o);
        const V ab = XOR(a, b), cd = XOR(c, d);
        STORE(entry + 1 * RQ_TILE, a);
        STORE(entry + 2 * RQ_TILE, b);
        STORE(entry + 3 * RQ_TILE, ab);
        STORE(entry + 4 * RQ_TILE, c);
        STORE(entry + 5 * RQ_TILE, XOR(a, c));
        STORE(entry + 6 * RQ_TILE, XOR(b, c));
        STORE(entry + 7 * RQ_TILE, XOR(ab, c));
        STORE(entry + 8 * RQ_TILE, d);
        STORE(entry + 9 * RQ_TILE, XOR(a, d));
        STORE(entry + 10 * RQ_TILE, XOR(b, d));
        STORE(entry + 11 * RQ_TILE, XOR(ab, d));
        STORE(entry + 12 * RQ_TILE, cd);
        STORE(entry + 13 * RQ_TILE, XOR(a, cd));
        STORE(entry + 14 * RQ_TILE, XOR(b, cd));
        STORE(entry + 15 * RQ_TILE, XOR(ab, cd));
    }
}

/* to = from + an entry of each of `groups` tables: `first` picks in the first eight, `second` in the others. */
INLINE void FN(pick)(uint8_t *to, const uint8_t *from, const uint8_t *tables, uint64_t first, uint64_t second, const int groups) {
    V sums[VECTORS];
    EACH (k, VECTORS) sums[k] = LOAD(from + (size_t)k * WIDTH);
    EACH (group, groups) {
        const uint8_t sixteenfold = (uint8_t)((group < 8 ? first : second) >> (group % 8 * 8));
        const uint8_t *entry = tables + (size_t)group * TABLE + sixteenfold * (size_t)(RQ_TILE / 16);
        EACH (k, VECTORS) {
            sums[k] = XOR(sums[k], LOAD(entry + (size_t)k * WIDTH));
            KEEP(sums[k]);
        }
    }
    EACH (k, VECTORS) STORE(to + (size_t)k * WIDTH, sums[k]);
}

/* Horner over the eight bit planes of each free column, which then lies where its lowest one was. */
INLINE void FN(join_planes)(uint8_t *planes, size_t frees) {
    for (; frees; frees--, planes += 8 * RQ_TILE) {
        EACH (k, VECTORS) {
            uint8_t *plane = planes + (size_t)k * WIDTH;
            V x = LOAD(plane + 7 * RQ_TILE);
            for (size_t bit = 7; bit-- > 0;) x = XOR(DOUBLE(x), LOAD(plane + bit * RQ_TILE));
            STORE(plane, x);
        }
    }
}

/* The next word of picks, or two, for each of `count` sums. */
INLINE void FN(pick_each)(uint8_t *sums, size_t count, const uint8_t *tables, const uint64_t *picks, const int groups) {
    const uint64_t *end = picks + count;
    for (; picks < end; picks++, sums += RQ_TILE) FN(pick)(sums, sums, tables, picks[0], groups > 8 ? picks[count] : 0, groups);
}

/* Rows lie so far apart that no hardware foresees the next one: the rows of the next tables are asked for while these are made.
 */
INLINE size_t FN(make_tables)(uint8_t *tables, const rq_combination *c, size_t word, size_t at, size_t next_at) {
    const size_t next = word + 2 < c->words ? word + 2 : 0, groups = c->words - word < 2 ? 8 : 16,
                 foreseen = c->words - next < 2 ? 8 : 16;
    if (next) next_at = at;
    for (size_t i = 0; i < groups; i++) {
        if (i < foreseen) {
            EACH (row, 4) PREFETCH(c->rows[32 * next + 4 * i + (size_t)row] + next_at + RQ_TILE - 1);
        }
        FN(make_sums)(tables + i * TABLE, c->rows + 32 * word + 4 * i, at);
    }
    return groups;
}

/* next_at: of the tile that comes after */
static TARGET void FN(combine_tile)(uint8_t *const *out, const rq_combination *c, size_t at, size_t next_at) {
    const size_t count = c->repairs + c->planes;
    uint8_t *tables = c->tables, *sums = c->sums;
    memset(sums, 0, count * RQ_TILE);
    for (size_t word = 0; word < c->words; word += 2) {
        if (FN(make_tables)(tables, c, word, at, next_at) == 16)
            FN(pick_each)(sums, count, tables, c->picks + word * count, 16);
        else
            FN(pick_each)(sums, count, tables, c->picks + word * count, 8);
    }
    const uint8_t *frees[RQ_MAX_HDPC];
    uint8_t *planes = sums + c->repairs * RQ_TILE;
    FN(join_planes)(planes, c->planes / 8);
    for (size_t i = 0; i < RQ_MAX_HDPC; i++) {
        const size_t nth = i < c->frees ? i : 0; /* there is no bit for those beyond */
        frees[i] = c->planes ? planes + 8 * nth * RQ_TILE : c->free_rows[nth] + at;
    }
    for (size_t i = 0; i < RQ_MAX_HDPC / 4; i++) FN(make_sums)(tables + i * TABLE, frees + 4 * i, 0);
    for (size_t i = 0; i < c->repairs; i++)
        FN(pick)(out[i] + at, sums + i * RQ_TILE, tables, rq_picks(c->masks[i]), 0, RQ_MAX_HDPC / 4);
}

static TARGET void FN(combine)(uint8_t *const *out, const rq_combination *c, size_t size) {
    memset(c->tables, 0, RQ_TABLES);
    for (size_t at = 0, next; at < size; at = next) { /* the last tile overlaps the one before */
        next = at + 2 * RQ_TILE <= size || at + RQ_TILE == size ? at + RQ_TILE : size - RQ_TILE;
        FN(combine_tile)(out, c, at, next < size ? next : at);
    }
}

static const rq_arithmetic FN(arithmetic) = {NAME,        COMBINE_FROM,   PREFERS_PLANES, FN(sum), FN(multiply_add),
                                             FN(product), FN(accumulate), FN(combine)};

#undef TABLE
#undef FN
#undef TARGET
#undef NARROW
#undef V
#undef WIDTH
#undef LOAD
#undef STORE
#undef XOR
#undef ZERO
#undef DOUBLE
#undef PREPARED
#undef PREPARE
#undef FACTOR
#undef FACTOR_OF
#undef ADD_PRODUCT
#undef ADD_PRODUCTS
#undef ROWS
#undef COLS
#undef VECTORS
#undef NAME
#undef COMBINE_FROM
#undef PREFERS_PLANES
#undef UNROLL
#undef INLINE
#undef KEEP
#undef PREFETCH
#undef IN_REGISTER
#undef EACH
