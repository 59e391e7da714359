/* GF(256) of RFC 6330 5.7 (x^8 + x^4 + x^3 + x^2 + 1) over rows of octets, and the choice of the instruction set.

   Multiplication by a constant is linear over GF(2). With GFNI it is one gf2p8affineqb with the constant's 8 x 8 bit matrix
   (gf2p8mulb has another field polynomial); with a byte shuffle it is two look-ups, one per nibble; portably it is eight
   conditional XORs of x, 2x, 4x, ...

   No -march, no ifunc: each function names its instruction set, and a table of pointers is chosen once. */

#include "_raptorq.h"

#include <string.h>

static uint8_t exponent[510], logarithm[256];
static uint8_t nibbles[256][32]; /* c * 0..15, c * 0x00..0xF0 */
static uint8_t unpacked[256][8];
static uint64_t bit_matrix[256]; /* for gf2p8affineqb: octet 7 - i selects the bits of x that add up to bit i of c * x */

uint8_t rq_multiply(uint8_t a, uint8_t b) { return a && b ? exponent[logarithm[a] + logarithm[b]] : 0; }

uint8_t rq_inverse(uint8_t a) { return a ? exponent[255 - logarithm[a]] : 0; }

void rq_unpack(uint8_t *octets, const uint8_t *bits, size_t count) {
    for (; count >= 8; count -= 8, octets += 8) memcpy(octets, unpacked[*bits++], 8);
    if (count) memcpy(octets, unpacked[*bits], count);
}

/* ---- octet by octet: rows shorter than eight ---- */

static void sum_octets(uint8_t *dst, const uint8_t *const *rows, size_t count, size_t size) {
    for (size_t at = 0; at < size; at++) {
        uint8_t value = 0;
        for (size_t j = 0; j < count; j++) value ^= rows[j][at];
        dst[at] = value;
    }
}

static uint8_t times(const uint8_t table[32], uint8_t x) { return table[x & 15] ^ table[16 + (x >> 4)]; }

static void multiply_add_octets(uint8_t *dst, const uint8_t *row, uint8_t c, size_t size) {
    for (size_t at = 0; at < size; at++) dst[at] ^= times(nibbles[c], row[at]);
}

static void product_octets(uint8_t *const *out, size_t count, const uint8_t *coefficients, size_t stride,
                           const uint8_t *const *rows, size_t terms, size_t size) {
    for (size_t i = 0; i < count; i++) {
        memset(out[i], 0, size);
        for (size_t j = 0; j < terms; j++) multiply_add_octets(out[i], rows[j], coefficients[i * stride + j], size);
    }
}

static void accumulate_from_octets(uint8_t *checks, const uint8_t *taps, const uint8_t *rows, size_t count, uint8_t *running,
                                   size_t size, size_t at) {
    for (; at < size; at++) {
        uint8_t value = running[at];
        for (size_t j = 0; j < count; j++) {
            value = (uint8_t)((value << 1) ^ (value & 0x80 ? 0x1D : 0) ^ rows[j * size + at]);
            checks[taps[2 * j] * size + at] ^= value;
            checks[taps[2 * j + 1] * size + at] ^= value;
        }
        running[at] = value;
    }
}

/* ---- portable: eight octets in a word ---- */

static inline uint64_t load64(const uint8_t *from) {
    uint64_t x;
    memcpy(&x, from, 8);
    return x;
}

static inline void store64(uint8_t *to, uint64_t x) { memcpy(to, &x, 8); }

static inline uint64_t double64(uint64_t x) {
    const uint64_t high = x & 0x8080808080808080u;
    return ((x ^ high) << 1) ^ ((high >> 7) * 0x1D);
}

typedef struct {
    uint64_t times[8]; /* x, 2x, 4x, ... */
} powers64;

static inline powers64 prepare64(uint64_t x) {
    powers64 p;
    p.times[0] = x;
    for (int i = 1; i < 8; i++) p.times[i] = double64(p.times[i - 1]);
    return p;
}

static inline uint64_t add_product64(uint64_t sum, powers64 p, uint8_t c) {
    for (int i = 0; i < 8; i++) sum ^= p.times[i] & (0 - (uint64_t)(c >> i & 1));
    return sum;
}

#define NAME "portable"
#define COMBINE_FROM 2
#define PREFERS_PLANES 1
#define FN(name) name##_portable
#define NARROW(name) name##_octets
#define TARGET
#define V uint64_t
#define WIDTH 8
#define LOAD load64
#define STORE store64
#define XOR(a, b) ((a) ^ (b))
#define ZERO() 0
#define DOUBLE double64
#define PREPARED powers64
#define PREPARE prepare64
#define FACTOR uint8_t
#define FACTOR_OF(c) (c)
#define ADD_PRODUCT add_product64
#define ROWS 4
#define COLS 1
#define VECTORS 8
#include "_gf256_simd.h"

#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
#define RQ_X86 1
#include <immintrin.h>

/* ---- SSSE3: pshufb ---- */

#define FOR_SSSE3 __attribute__((target("ssse3")))
typedef struct {
    __m128i low, high;
} pair128;

static inline FOR_SSSE3 pair128 split128(__m128i x) {
    const __m128i mask = _mm_set1_epi8(15);
    return (pair128){_mm_and_si128(x, mask), _mm_and_si128(_mm_srli_epi64(x, 4), mask)};
}

static inline FOR_SSSE3 pair128 factor128(uint8_t c) {
    return (pair128){_mm_loadu_si128((const __m128i *)nibbles[c]), _mm_loadu_si128((const __m128i *)(nibbles[c] + 16))};
}

static inline FOR_SSSE3 __m128i add_product128(__m128i sum, pair128 x, pair128 f) {
    return _mm_xor_si128(sum, _mm_xor_si128(_mm_shuffle_epi8(f.low, x.low), _mm_shuffle_epi8(f.high, x.high)));
}

static inline FOR_SSSE3 __m128i double128(__m128i x) {
    const __m128i carry = _mm_and_si128(_mm_cmpgt_epi8(_mm_setzero_si128(), x), _mm_set1_epi8(0x1D));
    return _mm_xor_si128(_mm_add_epi8(x, x), carry);
}

#define NAME "ssse3"
#define COMBINE_FROM 12
#define PREFERS_PLANES 1
#define FN(name) name##_ssse3
#define NARROW(name) name##_portable
#define TARGET FOR_SSSE3
#define IN_REGISTER "x"
#define V __m128i
#define WIDTH 16
#define LOAD(p) _mm_loadu_si128((const __m128i *)(p))
#define STORE(p, x) _mm_storeu_si128((__m128i *)(p), x)
#define XOR _mm_xor_si128
#define ZERO _mm_setzero_si128
#define DOUBLE double128
#define PREPARED pair128
#define PREPARE split128
#define FACTOR pair128
#define FACTOR_OF factor128
#define ADD_PRODUCT add_product128
#define ROWS 4
#define COLS 2
#define VECTORS 4
#include "_gf256_simd.h"

/* ---- AVX2: vpshufb ---- */

#define FOR_AVX2 __attribute__((target("avx2")))
typedef struct {
    __m256i low, high;
} pair256;

static inline FOR_AVX2 pair256 split256(__m256i x) {
    const __m256i mask = _mm256_set1_epi8(15);
    return (pair256){_mm256_and_si256(x, mask), _mm256_and_si256(_mm256_srli_epi64(x, 4), mask)};
}

static inline FOR_AVX2 pair256 factor256(uint8_t c) {
    return (pair256){_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)nibbles[c])),
                     _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(nibbles[c] + 16)))};
}

static inline FOR_AVX2 __m256i add_product256(__m256i sum, pair256 x, pair256 f) {
    return _mm256_xor_si256(sum, _mm256_xor_si256(_mm256_shuffle_epi8(f.low, x.low), _mm256_shuffle_epi8(f.high, x.high)));
}

static inline FOR_AVX2 __m256i double256(__m256i x) {
    const __m256i carry = _mm256_and_si256(_mm256_cmpgt_epi8(_mm256_setzero_si256(), x), _mm256_set1_epi8(0x1D));
    return _mm256_xor_si256(_mm256_add_epi8(x, x), carry);
}

#define NAME "avx2"
#define COMBINE_FROM 13
#define PREFERS_PLANES 1
#define FN(name) name##_avx2
#define NARROW(name) name##_ssse3
#define TARGET FOR_AVX2
#define IN_REGISTER "x"
#define V __m256i
#define WIDTH 32
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, x) _mm256_storeu_si256((__m256i *)(p), x)
#define XOR _mm256_xor_si256
#define ZERO _mm256_setzero_si256
#define DOUBLE double256
#define PREPARED pair256
#define PREPARE split256
#define FACTOR pair256
#define FACTOR_OF factor256
#define ADD_PRODUCT add_product256
#define ROWS 4
#define COLS 2
#define VECTORS 2
#include "_gf256_simd.h"

/* ---- GFNI + AVX2 ---- */

#define FOR_GFNI __attribute__((target("gfni,avx2")))

static inline FOR_GFNI __m256i add_affine256(__m256i sum, __m256i x, __m256i f) {
    return _mm256_xor_si256(sum, _mm256_gf2p8affine_epi64_epi8(x, f, 0));
}

static inline FOR_GFNI __m256i matrix256(uint8_t c) { return _mm256_set1_epi64x((long long)bit_matrix[c]); }

static inline FOR_GFNI __m256i twice256(__m256i x) { return _mm256_gf2p8affine_epi64_epi8(x, matrix256(2), 0); }

#define NAME "gfni_avx2"
#define COMBINE_FROM 18
#define PREFERS_PLANES 0
#define FN(name) name##_gfni_avx2
#define NARROW(name) name##_ssse3
#define TARGET FOR_GFNI
#define IN_REGISTER "x"
#define V __m256i
#define WIDTH 32
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, x) _mm256_storeu_si256((__m256i *)(p), x)
#define XOR _mm256_xor_si256
#define ZERO _mm256_setzero_si256
#define DOUBLE twice256
#define PREPARED __m256i
#define PREPARE(x) (x)
#define FACTOR __m256i
#define FACTOR_OF matrix256
#define ADD_PRODUCT add_affine256
#define ROWS 6
#define COLS 2
#define VECTORS 2
#include "_gf256_simd.h"

/* ---- GFNI + AVX-512 ---- */

#define FOR_GFNI512 __attribute__((target("gfni,avx512f,avx512bw,avx512vl")))

static inline FOR_GFNI512 __m512i add_affine512(__m512i sum, __m512i x, __m512i f) {
    return _mm512_xor_si512(sum, _mm512_gf2p8affine_epi64_epi8(x, f, 0));
}

static inline FOR_GFNI512 __m512i add_affines512(__m512i sum, __m512i x, __m512i f, __m512i y, __m512i g) {
    return _mm512_ternarylogic_epi64(sum, _mm512_gf2p8affine_epi64_epi8(x, f, 0), _mm512_gf2p8affine_epi64_epi8(y, g, 0), 0x96);
}

static inline FOR_GFNI512 __m512i matrix512(uint8_t c) { return _mm512_set1_epi64((long long)bit_matrix[c]); }

static inline FOR_GFNI512 __m512i twice512(__m512i x) { return _mm512_gf2p8affine_epi64_epi8(x, matrix512(2), 0); }

#define NAME "gfni_avx512"
#define COMBINE_FROM 27
#define PREFERS_PLANES 0
#define FN(name) name##_gfni_avx512
#define NARROW(name) name##_gfni_avx2
#define TARGET FOR_GFNI512
#define IN_REGISTER "v"
#define V __m512i
#define WIDTH 64
#define LOAD(p) _mm512_loadu_si512((const void *)(p))
#define STORE(p, x) _mm512_storeu_si512((void *)(p), x)
#define XOR _mm512_xor_si512
#define ZERO _mm512_setzero_si512
#define DOUBLE twice512
#define PREPARED __m512i
#define PREPARE(x) (x)
#define FACTOR __m512i
#define FACTOR_OF matrix512
#define ADD_PRODUCT add_affine512
#define ADD_PRODUCTS add_affines512
#define ROWS 7
#define COLS 2
#define VECTORS 1
#include "_gf256_simd.h"

#elif defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__)) && !defined(__AARCH64EB__)
#define RQ_NEON 1
#include <arm_neon.h>

/* ---- NEON: tbl. Every AArch64 CPU has it. ---- */

typedef struct {
    uint8x16_t low, high;
} pair_neon;

static inline pair_neon split_neon(uint8x16_t x) { return (pair_neon){vandq_u8(x, vdupq_n_u8(15)), vshrq_n_u8(x, 4)}; }

static inline pair_neon factor_neon(uint8_t c) { return (pair_neon){vld1q_u8(nibbles[c]), vld1q_u8(nibbles[c] + 16)}; }

static inline uint8x16_t add_product_neon(uint8x16_t sum, pair_neon x, pair_neon f) {
    return veorq_u8(sum, veorq_u8(vqtbl1q_u8(f.low, x.low), vqtbl1q_u8(f.high, x.high)));
}

static inline uint8x16_t double_neon(uint8x16_t x) {
    const uint8x16_t carry = vreinterpretq_u8_s8(vshrq_n_s8(vreinterpretq_s8_u8(x), 7));
    return veorq_u8(vshlq_n_u8(x, 1), vandq_u8(carry, vdupq_n_u8(0x1D)));
}

#define NAME "neon"
#define COMBINE_FROM 12
#define PREFERS_PLANES 1
#define FN(name) name##_neon
#define NARROW(name) name##_portable
#define TARGET
#define IN_REGISTER "w"
#define V uint8x16_t
#define WIDTH 16
#define LOAD vld1q_u8
#define STORE vst1q_u8
#define XOR veorq_u8
#define ZERO() vdupq_n_u8(0)
#define DOUBLE double_neon
#define PREPARED pair_neon
#define PREPARE split_neon
#define FACTOR pair_neon
#define FACTOR_OF factor_neon
#define ADD_PRODUCT add_product_neon
#define ROWS 4
#define COLS 2
#define VECTORS 4
#include "_gf256_simd.h"
#endif

/* ---- dispatch ---- */

static const rq_arithmetic *usable[8];
static const rq_arithmetic *chosen = &arithmetic_portable;

static void make_tables(void) {
    unsigned value = 1;
    for (unsigned i = 0; i < 255; i++) {
        exponent[i] = exponent[i + 255] = (uint8_t)value;
        logarithm[value] = (uint8_t)i;
        value = (value << 1) ^ (value & 0x80 ? 0x11D : 0);
    }
    for (unsigned c = 0; c < 256; c++) {
        for (unsigned x = 0; x < 16; x++) {
            nibbles[c][x] = rq_multiply((uint8_t)c, (uint8_t)x);
            nibbles[c][16 + x] = rq_multiply((uint8_t)c, (uint8_t)(x << 4));
        }
        bit_matrix[c] = 0;
        for (unsigned bit = 0; bit < 8; bit++) {
            unpacked[c][bit] = c >> bit & 1;
            const uint8_t image = bit < 4 ? nibbles[c][1u << bit] : nibbles[c][16 + (1u << (bit - 4))];
            for (unsigned i = 0; i < 8; i++) bit_matrix[c] |= (uint64_t)(image >> i & 1) << (8 * (7 - i) + bit);
        }
    }
}

void rq_initialise(void) {
    if (usable[0]) return;
    make_tables();
    size_t count = 0;
#if defined(RQ_X86)
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2"), gfni = __builtin_cpu_supports("gfni");
    if (avx2 && gfni && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        usable[count++] = &arithmetic_gfni_avx512;
    if (avx2 && gfni) usable[count++] = &arithmetic_gfni_avx2;
    if (avx2) usable[count++] = &arithmetic_avx2;
    if (__builtin_cpu_supports("ssse3")) usable[count++] = &arithmetic_ssse3;
#elif defined(RQ_NEON)
    usable[count++] = &arithmetic_neon;
#endif
    usable[count] = &arithmetic_portable;
    chosen = usable[0];
}

const rq_arithmetic *rq_arithmetic_now(void) { return chosen; }

const rq_arithmetic *rq_arithmetic_at(size_t index) { return index < sizeof usable / sizeof *usable ? usable[index] : NULL; }

void rq_choose(const rq_arithmetic *arithmetic) { chosen = arithmetic; }
