/* Rows of octets over GF(256), once per instruction set: included by _gf256.c with these defined.

   FN(name)    the name with its suffix
   NARROW(name)  the next narrower implementation
   TARGET      function attribute
   V, WIDTH    a vector and its octets; LOAD, STORE, XOR, ZERO; DOUBLE(x) is 2 * x in the field
   PREPARED    what is derived once per source vector: PREPARE(x)
   FACTOR      what is derived once per coefficient: FACTOR_OF(c)
   ADD_PRODUCT(sum, prepared, factor)  sum + c * x; optionally ADD_PRODUCTS, two of them at once
   ROWS, COLS  the tile of a product that stays in registers
   VECTORS     how wide a tile of sums of four is

   Rows need no alignment. The end of a row is one more vector that overlaps the one before; rows shorter than a vector go to
   the narrower implementation. */

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 8")
#else
#define UNROLL
#endif
#if defined(__GNUC__) || defined(__clang__)
#define INLINE static inline __attribute__((always_inline)) TARGET
#else
#define INLINE static inline
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

/* Four Russians: the sixteen sums of each four source rows are made once per tile, and a row of bits picks one per nibble. */
#define TILE (VECTORS * WIDTH)
#define ENTRY(group, index) (tables + ((group)*16 + (index)) * TILE + (size_t)k * WIDTH)

INLINE void FN(combine_tile)(uint8_t *const *out, const rq_combination *c, size_t at) {
    uint8_t tables[RQ_GROUPS * 16 * TILE];
    const size_t count = c->repairs + 8 * c->frees;
    uint8_t *sums = c->sums;
    memset(sums, 0, count * TILE);
    for (size_t batch = 0; batch < c->groups; batch += RQ_GROUPS) {
        for (size_t group = 0; group < RQ_GROUPS; group++) {
            const uint8_t *const *rows = c->rows + 4 * (batch + group);
            EACH (k, VECTORS) {
                const size_t o = at + (size_t)k * WIDTH;
                const V a = LOAD(rows[0] + o), b = LOAD(rows[1] + o), d = LOAD(rows[2] + o), e = LOAD(rows[3] + o);
                const V ab = XOR(a, b), de = XOR(d, e);
                STORE(ENTRY(group, 0), ZERO());
                STORE(ENTRY(group, 1), a);
                STORE(ENTRY(group, 2), b);
                STORE(ENTRY(group, 3), ab);
                STORE(ENTRY(group, 4), d);
                STORE(ENTRY(group, 5), XOR(a, d));
                STORE(ENTRY(group, 6), XOR(b, d));
                STORE(ENTRY(group, 7), XOR(ab, d));
                STORE(ENTRY(group, 8), e);
                STORE(ENTRY(group, 9), XOR(a, e));
                STORE(ENTRY(group, 10), XOR(b, e));
                STORE(ENTRY(group, 11), XOR(ab, e));
                STORE(ENTRY(group, 12), de);
                STORE(ENTRY(group, 13), XOR(a, de));
                STORE(ENTRY(group, 14), XOR(b, de));
                STORE(ENTRY(group, 15), XOR(ab, de));
            }
        }
        const uint16_t *picks = c->picks + batch * count;
        for (size_t i = 0; i < count; i++, picks += RQ_GROUPS) {
            V sum[VECTORS];
            EACH (k, VECTORS) sum[k] = LOAD(sums + i * TILE + (size_t)k * WIDTH);
            EACH (group, (int)RQ_GROUPS) {
                const uint8_t *entry = tables + group * (16 * TILE) + picks[group];
                EACH (k, VECTORS) sum[k] = XOR(sum[k], LOAD(entry + (size_t)k * WIDTH));
            }
            EACH (k, VECTORS) STORE(sums + i * TILE + (size_t)k * WIDTH, sum[k]);
        }
    }
    for (size_t o = 0; o < TILE; o += WIDTH) {
        uint8_t *from = sums + o, *frees = from + c->repairs * TILE;
        for (size_t i = 0; i < c->frees; i++) { /* Horner over the bit planes */
            uint8_t *plane = frees + 8 * i * TILE;
            V x = LOAD(plane + 7 * TILE);
            for (size_t bit = 7; bit-- > 0;) x = XOR(DOUBLE(x), LOAD(plane + bit * TILE));
            STORE(plane, x);
        }
        for (size_t i = 0; i < c->repairs; i++) {
            V x = LOAD(from + i * TILE);
            for (size_t j = 0; j < c->frees; j++) {
                if (c->masks[i] >> j & 1) x = XOR(x, LOAD(frees + 8 * j * TILE));
            }
            STORE(out[i] + at + o, x);
        }
    }
}

static TARGET void FN(combine)(uint8_t *const *out, const rq_combination *c, size_t size) {
    if (size < TILE) {
        NARROW(combine)(out, c, size);
        return;
    }
    const size_t count = c->repairs + 8 * c->frees;
    uint16_t *picks = c->picks;
    for (size_t batch = 0; batch < c->groups; batch += RQ_GROUPS) {
        for (size_t i = 0; i < count; i++) {
            const uint8_t *bits = c->bits[i] + batch / 2;
            EACH (j, (int)RQ_GROUPS / 2) {
                *picks++ = (uint16_t)((bits[j] & 15) * TILE);
                *picks++ = (uint16_t)((bits[j] >> 4) * TILE);
            }
        }
    }
    size_t at = 0;
    for (; at + TILE <= size; at += TILE) FN(combine_tile)(out, c, at);
    if (at < size) FN(combine_tile)(out, c, size - TILE);
}

static const rq_arithmetic FN(arithmetic) = {NAME,        COMBINE_FROM,   PREFERS_PLANES, FN(sum), FN(multiply_add),
                                             FN(product), FN(accumulate), FN(combine)};

#undef TILE
#undef ENTRY

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
#undef EACH
