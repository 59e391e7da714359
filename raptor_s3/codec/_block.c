/* A source block as datagrams, and back (RFC 6330 4.4, 5.3, 5.4).

   With a generator, a repair symbol is a sum of source symbols (a row of bits) and of some free columns, which are at most
   sixteen GF(256) combinations of the source symbols. A few repair symbols are made as rows of GF(256) coefficients, many share
   the free columns and the sums of four.

   A decoder that misses m source symbols and holds m independent repair symbols subtracts what it holds from these (syndromes)
   and inverts the m x m part of their rows. Without a generator (large K'), or with much missing, inactivation decoding finds
   the intermediate symbols instead. */

#include "_raptorq.h"

#include <stdlib.h>
#include <string.h>

#define REPAIR_CHUNK 128u   /* repair rows made at a time: bounds the scratch memory of a long run */
#define COMBINE_SYMBOLS 32u /* source symbols from which the sums of four pay */
#define CACHE_LINE 64u

static void lt_symbol(const rq_code *code, uint32_t isi, const uint8_t *intermediate, size_t size, uint8_t *to) {
    uint16_t columns[RQ_MAX_ROW];
    const uint8_t *terms[RQ_MAX_ROW];
    const size_t count = rq_lt_row(code, isi, columns);
    for (size_t i = 0; i < count; i++) terms[i] = intermediate + columns[i] * size;
    rq_arithmetic_now()->sum(to, terms, count, size);
}

static size_t octets_of(const rq_source *source, size_t esi) {
    const size_t left = source->length - esi * source->size;
    return left < source->size ? left : source->size;
}

/* One allocation, cut into parts. */
typedef struct {
    uint8_t *at;
} scratch;

static void *take(scratch *s, size_t size) {
    void *part = s->at;
    s->at += (size + 15) & ~(size_t)15;
    return part;
}

#define ROUNDED(size) (((size_t)(size) + 15) & ~(size_t)15)

/* ---- repair rows ---- */

/* Encoding symbols in terms of source symbols and free columns. */
typedef struct {
    uint8_t *bits; /* count x packed */
    uint16_t *masks;
    size_t count;
} repair_rows;

static void make_row(const rq_code *code, uint32_t isi, uint8_t *bits, uint16_t *mask) {
    uint16_t columns[RQ_MAX_ROW];
    const uint8_t *terms[RQ_MAX_ROW];
    const size_t count = rq_lt_row(code, isi, columns);
    *mask = 0;
    for (size_t i = 0; i < count; i++) {
        uint16_t free_columns;
        memcpy(&free_columns, code->masks + 2 * (size_t)columns[i], 2);
        *mask ^= free_columns;
        terms[i] = code->bits + columns[i] * code->packed;
    }
    rq_arithmetic_now()->sum(bits, terms, count, code->packed);
}

/* to[i] = row i of `rows` times the K source symbols, as rows of coefficients. */
static int multiply_rows(const rq_code *code, const repair_rows *rows, const uint8_t *const *symbols, size_t k, size_t size,
                         uint8_t *const *to) {
    const rq_arithmetic *gf = rq_arithmetic_now();
    uint8_t few[2048], *coefficients = few;
    const uint8_t *terms[RQ_MAX_HDPC + 1];
    if (rows->count * code->padded > sizeof few && !(coefficients = malloc(rows->count * code->padded))) return RQ_NO_MEMORY;
    for (size_t i = 0; i < rows->count; i++) {
        uint8_t *row = coefficients + i * code->padded;
        size_t count = 0;
        rq_unpack(row, rows->bits + i * code->packed, code->padded);
        terms[count++] = row;
        for (size_t free_column = 0; free_column < code->hdpc; free_column++) {
            if (rows->masks[i] >> free_column & 1) terms[count++] = code->frees + free_column * code->padded;
        }
        if (count > 1) gf->sum(row, terms, count, code->padded);
    }
    gf->product(to, rows->count, coefficients, code->padded, symbols, k, size);
    if (coefficients != few) free(coefficients);
    return RQ_OK;
}

static uint32_t bits_at(const uint8_t *bits, size_t word) {
    bits += 4 * word;
    return (uint32_t)bits[0] | (uint32_t)bits[1] << 8 | (uint32_t)bits[2] << 16 | (uint32_t)bits[3] << 24;
}

/* The same through the sums of four. The free columns are made once: as bit planes, or as rows before. */
static int combine_rows(const rq_code *code, const repair_rows *rows, const uint8_t *const *symbols, size_t k, size_t size,
                        uint8_t *const *to) {
    const rq_arithmetic *gf = rq_arithmetic_now();
    const size_t frees = code->hdpc, planes = gf->prefers_planes ? 8 * frees : 0, count = rows->count + planes,
                 words = (k + 31) / 32, terms = 32 * words;
    uint8_t *memory = malloc(CACHE_LINE + RQ_TABLES + count * RQ_TILE + ROUNDED(terms * sizeof(uint8_t *)) + ROUNDED(8 * words * count) +
                             ROUNDED(size) + (planes ? 0 : frees * size));
    if (!memory) return RQ_NO_MEMORY;
    scratch s = {memory + (CACHE_LINE - (uintptr_t)memory % CACHE_LINE)};
    uint8_t *tables = take(&s, RQ_TABLES), *sums = take(&s, count * RQ_TILE);
    const uint8_t **from = take(&s, terms * sizeof *from), *free_rows[RQ_MAX_HDPC];
    uint64_t *picks = take(&s, 8 * words * count);
    uint8_t *zeros = take(&s, size), *to_free[RQ_MAX_HDPC];
    memset(zeros, 0, size);
    memcpy(from, symbols, k * sizeof *from);
    for (size_t j = k; j < terms; j++) from[j] = zeros;
    for (size_t i = 0; i < frees; i++) free_rows[i] = to_free[i] = s.at + i * size;
    if (!planes) gf->product(to_free, frees, code->frees, code->padded, symbols, k, size);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *bits =
            i < rows->count ? rows->bits + i * code->packed : code->planes + (i - rows->count) * code->packed;
        for (size_t word = 0; word < words; word++) picks[word * count + i] = rq_picks(bits_at(bits, word));
    }
    const rq_combination combination = {from, words, rows->count, frees, planes, picks, rows->masks, free_rows, tables, sums};
    gf->combine(to, &combination, size);
    free(memory);
    return RQ_OK;
}

static int apply_rows(const rq_code *code, const repair_rows *rows, const uint8_t *const *symbols, size_t k, size_t size,
                      uint8_t *const *to) {
    const int many = rows->count >= rq_arithmetic_now()->combine_from && k >= COMBINE_SYMBOLS && size >= RQ_TILE;
    return (many ? combine_rows : multiply_rows)(code, rows, symbols, k, size, to);
}

/* ---- encoding ---- */

static int make_repair(const rq_code *code, const uint8_t *intermediate, const rq_source *source, uint32_t first_isi,
                       uint8_t *const *to, size_t count) {
    if (!code->masks) {
        for (size_t i = 0; i < count; i++) lt_symbol(code, first_isi + (uint32_t)i, intermediate, source->size, to[i]);
        return RQ_OK;
    }
    const size_t k = source->symbols, size = source->size, chunk = count < REPAIR_CHUNK ? count : REPAIR_CHUNK;
    uint8_t *memory = malloc(ROUNDED(k * sizeof(uint8_t *)) + ROUNDED(size) + ROUNDED(chunk * code->packed) + ROUNDED(2 * chunk));
    if (!memory) return RQ_NO_MEMORY;
    scratch s = {memory};
    const uint8_t **symbols = take(&s, k * sizeof *symbols);
    uint8_t *last = take(&s, size);
    repair_rows rows = {.bits = take(&s, chunk * code->packed), .masks = take(&s, 2 * chunk)};
    for (size_t j = 0; j < k; j++) symbols[j] = source->data + j * size;
    const size_t tail = octets_of(source, k - 1);
    if (tail < size) {
        memcpy(last, source->data + (k - 1) * size, tail);
        memset(last + tail, 0, size - tail);
        symbols[k - 1] = last;
    }
    int status = RQ_OK;
    for (size_t at = 0; status == RQ_OK && at < count; at += chunk) {
        rows.count = count - at < chunk ? count - at : chunk;
        for (size_t i = 0; i < rows.count; i++)
            make_row(code, first_isi + (uint32_t)(at + i), rows.bits + i * code->packed, rows.masks + i);
        status = apply_rows(code, &rows, symbols, k, size, to + at);
    }
    free(memory);
    return status;
}

int rq_write_packets(const rq_code *code, const uint8_t *intermediate, const rq_source *source, const rq_slots *slots) {
    const uint32_t k = (uint32_t)source->symbols;
    const uint32_t end = slots->first_esi + slots->count, first_repair = slots->first_esi > k ? slots->first_esi : k;
    const uint32_t repairs = end > first_repair ? end - first_repair : 0;
    uint8_t *few[REPAIR_CHUNK], **to = few;
    if (repairs > REPAIR_CHUNK && !(to = malloc(repairs * sizeof *to))) return RQ_NO_MEMORY;
    for (uint32_t i = 0; i < slots->count; i++) {
        const uint32_t esi = slots->first_esi + i;
        uint8_t *at = slots->at + i * slots->stride;
        memcpy(at, slots->prefix, slots->prefix_length);
        at += slots->prefix_length;
        *at++ = (uint8_t)slots->sbn;
        *at++ = (uint8_t)(esi >> 16);
        *at++ = (uint8_t)(esi >> 8);
        *at++ = (uint8_t)esi;
        if (esi < k) {
            const size_t octets = octets_of(source, esi);
            memcpy(at, source->data + esi * source->size, octets);
            memset(at + octets, 0, source->size - octets);
        } else {
            to[esi - first_repair] = at;
        }
    }
    int status = RQ_OK;
    if (repairs) status = make_repair(code, intermediate, source, first_repair + (code->padded - k), to, repairs);
    if (to != few) free(to);
    return status;
}

int rq_make_intermediate(const rq_code *code, const rq_source *source, uint8_t *out) {
    const size_t k = source->symbols, size = source->size, padded = code->padded;
    uint8_t *memory = malloc(ROUNDED(padded * sizeof(uint8_t *)) + ROUNDED(padded * sizeof(uint32_t)) + ROUNDED(size));
    if (!memory) return RQ_NO_MEMORY;
    scratch s = {memory};
    const uint8_t **symbols = take(&s, padded * sizeof *symbols);
    uint32_t *isis = take(&s, padded * sizeof *isis);
    uint8_t *last = take(&s, size);
    for (size_t j = 0; j < padded; j++) {
        isis[j] = (uint32_t)j;
        symbols[j] = j < k ? source->data + j * size : NULL;
    }
    const size_t tail = octets_of(source, k - 1);
    memset(last, 0, size);
    memcpy(last, source->data + (k - 1) * size, tail);
    symbols[k - 1] = last;
    size_t deficiency;
    const int status = rq_solve(code, isis, symbols, padded, size, out, &deficiency);
    free(memory);
    return status;
}

/* ---- decoding ---- */

typedef struct {
    uint32_t esi;
    uint8_t *symbol;
} repair;

typedef struct {
    size_t symbols, size, missing, repairs;
    const uint8_t **held; /* K: where a source symbol is, or NULL */
    uint32_t *lost;       /* ESIs of the missing ones */
    repair *repair;       /* ascending, distinct */
} holding;

static int by_esi(const void *a, const void *b) {
    const repair *x = a, *y = b;
    if (x->esi != y->esi) return x->esi < y->esi ? -1 : 1;
    return (x->symbol > y->symbol) - (x->symbol < y->symbol); /* of duplicates, the first counts */
}

static void sort_out(const rq_received *received, holding *h) {
    int ascending = 1;
    h->missing = h->symbols;
    for (size_t i = 0; i < received->count; i++) {
        uint8_t *symbol = received->at + i * received->stride;
        uint32_t esi;
        if (received->esis) {
            esi = received->esis[i];
        } else {
            if (symbol[-4] != received->sbn) continue;
            esi = (uint32_t)symbol[-3] << 16 | (uint32_t)symbol[-2] << 8 | symbol[-1];
        }
        if (esi < h->symbols) {
            if (h->held[esi]) continue; /* of duplicates, the first counts */
            h->held[esi] = symbol;
            h->missing--;
        } else {
            ascending &= !h->repairs || h->repair[h->repairs - 1].esi < esi;
            h->repair[h->repairs++] = (repair){esi, symbol};
        }
    }
    if (!ascending) {
        qsort(h->repair, h->repairs, sizeof *h->repair, by_esi);
        size_t distinct = 1;
        for (size_t i = 1; i < h->repairs; i++) {
            if (h->repair[i].esi != h->repair[distinct - 1].esi) h->repair[distinct++] = h->repair[i];
        }
        h->repairs = distinct;
    }
    size_t lost = 0;
    for (uint32_t esi = 0; h->missing && esi < h->symbols; esi++) {
        if (!h->held[esi]) h->lost[lost++] = esi;
    }
}

/* Write missing source symbol esi to its place in `out`, through `last` where it is the block's short one. */
static uint8_t *place_of(const holding *h, uint32_t esi, uint8_t *out, size_t length, uint8_t *last) {
    return (esi + 1) * h->size <= length ? out + esi * h->size : last;
}

static void finish_last(const holding *h, uint8_t *out, size_t length, const uint8_t *last) {
    const size_t at = (h->symbols - 1) * h->size;
    if (length - at < h->size && !h->held[h->symbols - 1]) memcpy(out + at, last, length - at);
}

static int bit_of(const uint8_t *bits, size_t at) { return bits[at / 8] >> (at % 8) & 1; }

/* Choose m independent repair rows and invert their m x m part, one row at a time: inverse[i] = [row in the lost columns | row in
   the chosen rows]. Gauss-Jordan keeps every pivot's column clear in all other rows, so a new row is reduced by one product. */
static size_t choose_rows(const rq_code *code, const holding *h, repair_rows *rows, uint8_t *inverse, uint32_t *pivot_of,
                          uint32_t *chosen, uint8_t *factors, const uint8_t **terms) {
    const rq_arithmetic *gf = rq_arithmetic_now();
    const size_t m = h->missing, width = 2 * m;
    uint8_t *change = inverse + m * width;
    for (size_t at = 0; at < h->repairs && rows->count < m; at++) {
        const size_t rank = rows->count;
        uint8_t *bits = rows->bits + rank * code->packed, *fresh = inverse + rank * width;
        make_row(code, h->repair[at].esi + (code->padded - (uint32_t)h->symbols), bits, rows->masks + rank);
        for (size_t i = 0; i < m; i++) fresh[i] = (uint8_t)bit_of(bits, h->lost[i]);
        for (size_t free_column = 0; free_column < code->hdpc; free_column++) {
            if (!(rows->masks[rank] >> free_column & 1)) continue;
            for (size_t i = 0; i < m; i++) fresh[i] ^= code->frees[free_column * code->padded + h->lost[i]];
        }
        memset(fresh + m, 0, m);
        fresh[m + rank] = 1;
        if (rank) {
            for (size_t i = 0; i < rank; i++) {
                factors[i] = fresh[pivot_of[i]];
                terms[i] = inverse + i * width;
            }
            gf->product(&change, 1, factors, rank, terms, rank, width);
            gf->multiply_add(fresh, change, 1, width);
        }
        uint32_t column = 0;
        while (column < m && !fresh[column]) column++;
        if (column == m) continue;
        const uint8_t scale = rq_inverse(fresh[column]);
        if (scale != 1) gf->multiply_add(fresh, fresh, scale ^ 1, width);
        for (size_t i = 0; i < rank; i++) {
            const uint8_t factor = inverse[i * width + column];
            if (factor) gf->multiply_add(inverse + i * width, fresh, factor, width);
        }
        pivot_of[rank] = column;
        chosen[rank] = (uint32_t)at;
        rows->count++;
    }
    return rows->count;
}

static int decode_dense(const rq_code *code, const holding *h, uint8_t *out, size_t length, size_t *deficiency) {
    const rq_arithmetic *gf = rq_arithmetic_now();
    const size_t m = h->missing, k = h->symbols, size = h->size;
    uint8_t *memory =
        malloc(2 * ROUNDED(size) + ROUNDED(m * code->packed) + ROUNDED(2 * m) + ROUNDED((m + 1) * 2 * m) + 2 * ROUNDED(4 * m) +
               ROUNDED(m) + 2 * ROUNDED(m * sizeof(uint8_t *)) + ROUNDED(k * sizeof(uint8_t *)) + m * size);
    if (!memory) return RQ_NO_MEMORY;
    scratch s = {memory};
    uint8_t *last = take(&s, size), *zeros = take(&s, size);
    repair_rows rows = {.bits = take(&s, m * code->packed), .masks = take(&s, 2 * m)};
    uint8_t *inverse = take(&s, (m + 1) * 2 * m);
    uint32_t *pivot_of = take(&s, 4 * m), *chosen = take(&s, 4 * m);
    uint8_t *factors = take(&s, m);
    const uint8_t **terms = take(&s, m * sizeof *terms);
    uint8_t **to = take(&s, m * sizeof *to);
    const uint8_t **symbols = take(&s, k * sizeof *symbols);
    uint8_t *syndromes = s.at;

    int status = RQ_OK;
    const size_t rank = choose_rows(code, h, &rows, inverse, pivot_of, chosen, factors, terms);
    if (rank < m) {
        *deficiency = m - rank;
        status = RQ_SINGULAR;
    }
    if (status == RQ_OK) {
        memset(zeros, 0, size);
        memcpy(symbols, h->held, k * sizeof *symbols);
        for (size_t i = 0; i < m; i++) {
            symbols[h->lost[i]] = zeros;
            terms[i] = to[i] = syndromes + i * size;
        }
        status = apply_rows(code, &rows, symbols, k, size, to);
    }
    if (status == RQ_OK) {
        for (size_t i = 0; i < m; i++) {
            gf->multiply_add(to[i], h->repair[chosen[i]].symbol, 1, size);
        }
        for (size_t i = 0; i < m; i++) to[i] = place_of(h, h->lost[pivot_of[i]], out, length, last);
        gf->product(to, m, inverse + m, 2 * m, terms, m, size);
        finish_last(h, out, length, last);
    }
    free(memory);
    return status;
}

/* Like decode_dense, but the lost symbols go where repair symbols were, or to *restored, and `held` is complete: the intermediate
   symbols are gone by the time that the block is put together. */
static int decode_sparse(const rq_code *code, holding *h, int may_overwrite, uint8_t **restored, size_t *deficiency) {
    const size_t k = h->symbols, padding = code->padded - k, count = code->padded - h->missing + h->repairs;
    uint8_t *intermediate = malloc(code->total * h->size);
    uint8_t *memory = malloc(ROUNDED(4 * count) + ROUNDED(count * sizeof(uint8_t *)));
    int status = RQ_NO_MEMORY;
    if (!intermediate || !memory) goto done;
    if (!may_overwrite && !(*restored = malloc(h->missing * h->size))) goto done;
    scratch s = {memory};
    uint32_t *isis = take(&s, 4 * count);
    const uint8_t **symbols = take(&s, count * sizeof *symbols);
    size_t n = 0;
    for (uint32_t isi = 0; isi < code->padded; isi++) {
        if (isi < k && !h->held[isi]) continue;
        isis[n] = isi;
        symbols[n++] = isi < k ? h->held[isi] : NULL;
    }
    for (size_t i = 0; i < h->repairs; i++) {
        isis[n] = h->repair[i].esi + (uint32_t)padding;
        symbols[n++] = h->repair[i].symbol;
    }
    status = rq_solve(code, isis, symbols, n, h->size, intermediate, deficiency);
    for (size_t i = 0; status == RQ_OK && i < h->missing; i++) {
        uint8_t *to = may_overwrite ? h->repair[i].symbol : *restored + i * h->size;
        lt_symbol(code, h->lost[i], intermediate, h->size, to);
        h->held[h->lost[i]] = to;
    }
done:
    free(memory);
    free(intermediate);
    return status;
}

static void put_together(holding *h, uint8_t *out, size_t length) {
    for (size_t esi = 0; esi < h->symbols; esi++) {
        if (!h->held[esi]) continue;
        const size_t at = esi * h->size, octets = length - at < h->size ? length - at : h->size;
        memcpy(out + at, h->held[esi], octets);
        if (octets == h->size) h->held[esi] = out + at;
    }
}

int rq_decode(const rq_code *code, const rq_received *received, size_t symbols, size_t size, uint8_t *out, size_t length,
              size_t *distinct, size_t *missing) {
    uint8_t *memory =
        malloc(ROUNDED(symbols * sizeof(uint8_t *)) + ROUNDED(symbols * 4) + ROUNDED(received->count * sizeof(repair)));
    if (!memory) return RQ_NO_MEMORY;
    scratch s = {memory};
    holding h = {.symbols = symbols, .size = size};
    h.held = take(&s, symbols * sizeof *h.held);
    h.lost = take(&s, symbols * 4);
    h.repair = take(&s, received->count * sizeof *h.repair);
    memset((void *)h.held, 0, symbols * sizeof *h.held);
    sort_out(received, &h);

    *distinct = symbols - h.missing + h.repairs;
    *missing = *distinct < symbols ? symbols - *distinct : 0;
    uint8_t *restored = NULL;
    int status = *missing ? RQ_SINGULAR : RQ_OK;
    if (status == RQ_OK && (!code->masks || h.missing > 48 + symbols / 16)) { /* where the two cross on AVX2 */
        if (h.missing) status = decode_sparse(code, &h, received->may_overwrite, &restored, missing);
        if (status == RQ_OK) put_together(&h, out, length);
    } else if (status == RQ_OK) {
        put_together(&h, out, length); /* first: one pass over what may lie far away, then the arithmetic on the copy */
        if (h.missing) status = decode_dense(code, &h, out, length, missing);
    }
    if (status == RQ_OK) *missing = 0;
    free(restored);
    free(memory);
    return status;
}
