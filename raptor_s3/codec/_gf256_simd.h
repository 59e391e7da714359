/* Rows of octets over GF(256), once per instruction set: included by _gf256.c with these defined.

   FN(name)   the name with its suffix           TARGET  function attribute          NARROW(name)  the next narrower implementation
   V, WIDTH   a vector and its octets            LOAD STORE XOR ZERO DOUBLE          DOUBLE(x) = 2 * x in the field
   PREPARED   what is derived once per source vector: PREPARE(x)
   FACTOR     what is derived once per coefficient: FACTOR_OF(c); ADD_PRODUCT(acc, prepared, factor) -> acc + c * x
   ROWS, COLS the tile that stays in registers

   Rows need no alignment. A row's end is one more vector that overlaps the one before; rows shorter than a vector go to the narrower implementation. */

#if defined(__GNUC__) || defined(__clang__)
#define UNROLL _Pragma("GCC unroll 8")
#define INLINE static inline __attribute__((always_inline)) TARGET
#else
#define UNROLL
#define INLINE static inline
#endif

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
    for (size_t at = 0; at + WIDTH <= size; at += WIDTH) STORE(dst + at, ADD_PRODUCT(LOAD(dst + at), PREPARE(LOAD(row + at)), factor));
    STORE(dst + size - WIDTH, end);
}

/* `count` <= ROWS rows of the product, `cols` <= COLS vectors of each; both are constants where this is called, so the sums stay in registers. */
INLINE void FN(tile)(uint8_t *const *out, const int count, const uint8_t *coefficients, size_t stride, const uint8_t *const *rows, size_t terms, size_t at, const int cols) {
    V sums[ROWS][COLS];
    UNROLL for (int i = 0; i < count; i++) {
        UNROLL for (int k = 0; k < cols; k++) sums[i][k] = ZERO();
    }
    for (size_t j = 0; j < terms; j++) {
        PREPARED prepared[COLS];
        UNROLL for (int k = 0; k < cols; k++) prepared[k] = PREPARE(LOAD(rows[j] + at + (size_t)k * WIDTH));
        UNROLL for (int i = 0; i < count; i++) {
            const FACTOR factor = FACTOR_OF(coefficients[(size_t)i * stride + j]);
            UNROLL for (int k = 0; k < cols; k++) sums[i][k] = ADD_PRODUCT(sums[i][k], prepared[k], factor);
        }
    }
    UNROLL for (int i = 0; i < count; i++) {
        UNROLL for (int k = 0; k < cols; k++) STORE(out[i] + at + (size_t)k * WIDTH, sums[i][k]);
    }
}

INLINE void FN(strip)(uint8_t *const *out, const int count, const uint8_t *coefficients, size_t stride, const uint8_t *const *rows, size_t terms, size_t size) {
    size_t at = 0;
    for (; at + COLS * WIDTH <= size; at += COLS * WIDTH) FN(tile)(out, count, coefficients, stride, rows, terms, at, COLS);
    for (; at + WIDTH <= size; at += WIDTH) FN(tile)(out, count, coefficients, stride, rows, terms, at, 1);
    if (at < size) FN(tile)(out, count, coefficients, stride, rows, terms, size - WIDTH, 1);
}

static TARGET void FN(product)(uint8_t *const *out, size_t count, const uint8_t *coefficients, size_t stride, const uint8_t *const *rows, size_t terms, size_t size) {
    if (size < WIDTH) {
        NARROW(product)(out, count, coefficients, stride, rows, terms, size);
        return;
    }
    size_t i = 0;
    for (; i + ROWS <= count; i += ROWS) FN(strip)(out + i, ROWS, coefficients + i * stride, stride, rows, terms, size);
    switch (count - i) {
    case 3: FN(strip)(out + i, 3, coefficients + i * stride, stride, rows, terms, size); break;
    case 2: FN(strip)(out + i, 2, coefficients + i * stride, stride, rows, terms, size); break;
    case 1: FN(strip)(out + i, 1, coefficients + i * stride, stride, rows, terms, size); break;
    default: break;
    }
}

INLINE void FN(accumulate_at)(uint8_t *checks, const uint8_t *taps, const uint8_t *rows, size_t count, uint8_t *running, size_t size, size_t at, const int cols) {
    V sums[COLS];
    UNROLL for (int k = 0; k < cols; k++) sums[k] = LOAD(running + at + (size_t)k * WIDTH);
    for (size_t j = 0; j < count; j++) {
        const uint8_t *row = rows + j * size + at;
        uint8_t *first = checks + taps[2 * j] * size + at, *second = checks + taps[2 * j + 1] * size + at;
        UNROLL for (int k = 0; k < cols; k++) {
            const size_t o = (size_t)k * WIDTH;
            sums[k] = XOR(DOUBLE(sums[k]), LOAD(row + o));
            STORE(first + o, XOR(LOAD(first + o), sums[k]));
            STORE(second + o, XOR(LOAD(second + o), sums[k]));
        }
    }
    UNROLL for (int k = 0; k < cols; k++) STORE(running + at + (size_t)k * WIDTH, sums[k]);
}

static TARGET void FN(accumulate_from)(uint8_t *checks, const uint8_t *taps, const uint8_t *rows, size_t count, uint8_t *running, size_t size, size_t at) {
    for (; at + WIDTH <= size; at += WIDTH) FN(accumulate_at)(checks, taps, rows, count, running, size, at, 1);
    if (at < size) NARROW(accumulate_from)(checks, taps, rows, count, running, size, at);
}

static TARGET void FN(accumulate)(uint8_t *checks, const uint8_t *taps, const uint8_t *rows, size_t count, uint8_t *running, size_t size) {
    size_t at = 0;
    for (; at + COLS * WIDTH <= size; at += COLS * WIDTH) FN(accumulate_at)(checks, taps, rows, count, running, size, at, COLS);
    FN(accumulate_from)(checks, taps, rows, count, running, size, at);
}

static const rq_arithmetic FN(arithmetic) = {NAME, FN(sum), FN(multiply_add), FN(product), FN(accumulate)};

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
#undef ROWS
#undef COLS
#undef NAME
#undef UNROLL
#undef INLINE
