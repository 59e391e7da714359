/* Transport messages (whitepaper 5.4.6) without Python between two octets: the C side of raptor_s3.wireguard.arena, whose Python twins
 * give the same bytes.
 *
 * No cryptography lives here. ChaCha20-Poly1305 is libsodium's, handed over by address from PyNaCl's binding, or, for runs of messages,
 * OpenSSL's (_libcrypto.h).
 *
 * Invariant: every length is checked against its buffer, and every counter against 2^64, before the first octet is read or written;
 * a run that fails leaves zeros and an exception; a replay window changes only when a tag has verified. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>

#include "_libcrypto.h"

#define KEY_SIZE 32
#define NONCE_SIZE 12
#define TAG_SIZE 16
#define HEADER_SIZE 16
#define OVERHEAD (HEADER_SIZE + TAG_SIZE)
#define TYPE_TRANSPORT 4
/* So that no size overflows an int (EVP) or a sum; UDP has 65,535. */
#define MAX_SIZE (INT_MAX - OVERHEAD)
/* Giving the GIL away costs a small run more than others could do meanwhile. */
#define RELEASE_ABOVE 16384

/* A replay window, as raptor_s3.wireguard.replay describes it: the ring, then two bounds. */
#define WINDOW_BITS 8192
#define BLOCK_BITS 64
#define BLOCKS (WINDOW_BITS / BLOCK_BITS)
#define RING_OCTETS (WINDOW_BITS / 8)
#define WINDOW_OCTETS (RING_OCTETS + 16)

/* Why a message is not opened, the first that applies: raptor_s3.wireguard.arena has the same numbers. */
enum { NOT_OURS = 1, PAST_LIMIT = 2, NOT_FRESH = 3, FORGED = 4 };

/* crypto_aead_chacha20poly1305_ietf_encrypt(c, clen_p, m, mlen, ad, adlen, nsec, npub, k) */
typedef int (*sodium_encrypt)(uint8_t *, unsigned long long *, const uint8_t *, unsigned long long, const uint8_t *, unsigned long long,
                              const uint8_t *, const uint8_t *, const uint8_t *);
/* crypto_aead_chacha20poly1305_ietf_decrypt(m, mlen_p, nsec, c, clen, ad, adlen, npub, k) */
typedef int (*sodium_decrypt)(uint8_t *, unsigned long long *, uint8_t *, const uint8_t *, unsigned long long, const uint8_t *,
                              unsigned long long, const uint8_t *, const uint8_t *);

/* Read and written while the GIL is held. */
static sodium_encrypt aead_encrypt;
static sodium_decrypt aead_decrypt;
static libcrypto openssl;

/* Equal-size plaintexts to be sealed under counters one after the other. */
typedef struct {
    const uint8_t *key;
    uint32_t index;
    uint64_t counter;
    const uint8_t *plaintext;
    Py_ssize_t count, size, stride;
    uint8_t *message;
    libcrypto openssl; /* no cipher: libsodium */
} run;

static void store_le(uint8_t *out, uint64_t value, int octets)
{
    for (int i = 0; i < octets; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t load_le(const uint8_t *octets, int count)
{
    uint64_t value = 0;
    while (count--)
        value = value << 8 | octets[count];
    return value;
}

static void write_header(uint8_t *message, uint32_t index, uint64_t counter)
{
    store_le(message, TYPE_TRANSPORT, 4);
    store_le(message + 4, index, 4);
    store_le(message + 8, counter, 8);
}

/* Whitepaper 5.4.6: 32 zero bits and the counter. */
static void write_nonce(uint8_t *nonce, uint64_t counter)
{
    memset(nonce, 0, 4);
    store_le(nonce + 4, counter, 8);
}

static int seal_one(const uint8_t *key, uint32_t index, uint64_t counter, const uint8_t *plaintext, Py_ssize_t size, uint8_t *message)
{
    uint8_t nonce[NONCE_SIZE];

    write_header(message, index, counter);
    write_nonce(nonce, counter);
    return aead_encrypt(message + HEADER_SIZE, NULL, plaintext, (unsigned long long)size, NULL, 0, NULL, nonce, key) == 0;
}

static int seal_run(const run *r)
{
    uint8_t nonce[NONCE_SIZE];
    void *context = r->openssl.cipher != NULL ? libcrypto_begin(&r->openssl, r->key) : NULL;
    int good = r->openssl.cipher == NULL || context != NULL;

    for (Py_ssize_t i = 0; good && i < r->count; i++) {
        const uint8_t *plaintext = r->plaintext + i * r->stride;
        uint8_t *message = r->message + i * (r->size + OVERHEAD);
        uint64_t counter = r->counter + (uint64_t)i;
        if (context != NULL) {
            write_header(message, r->index, counter);
            write_nonce(nonce, counter);
            good = libcrypto_seal(&r->openssl, context, nonce, plaintext, (int)r->size, message + HEADER_SIZE);
        } else {
            good = seal_one(r->key, r->index, counter, plaintext, r->size, message);
        }
    }
    if (context != NULL)
        r->openssl.context_free(context);
    if (!good)
        memset(r->message, 0, (size_t)(r->count * (r->size + OVERHEAD)));
    return good;
}

/* The replay window. Whatever it holds, nothing outside it is touched. */

static int window_is_fresh(const uint8_t *window, uint64_t counter)
{
    uint64_t end = load_le(window + RING_OCTETS, 8), first = load_le(window + RING_OCTETS + 8, 8);

    if (counter >= end)
        return 1;
    if (counter < first || end - counter > WINDOW_BITS - BLOCK_BITS)
        return 0;
    return !(window[counter / 8 % RING_OCTETS] >> counter % 8 & 1);
}

static void window_clear(uint8_t *window, uint64_t block, uint64_t last_block)
{
    if (last_block + 1 - block >= BLOCKS)
        memset(window, 0, RING_OCTETS);
    else
        for (; block <= last_block; block++)
            memset(window + block % BLOCKS * (BLOCK_BITS / 8), 0, BLOCK_BITS / 8);
}

/* The counter is below some limit, so that one more is no overflow. */
static void window_mark(uint8_t *window, uint64_t counter)
{
    uint64_t end = load_le(window + RING_OCTETS, 8);

    if (counter >= end) {
        window_clear(window, end / BLOCK_BITS + (end % BLOCK_BITS != 0), counter / BLOCK_BITS);
        store_le(window + RING_OCTETS, counter + 1, 8);
    }
    window[counter / 8 % RING_OCTETS] |= (uint8_t)(1 << counter % 8);
}

/* Opening */

static int is_ours(const uint8_t *message, Py_ssize_t size, uint32_t index)
{
    return size >= OVERHEAD && size <= MAX_SIZE && load_le(message, 4) == TYPE_TRANSPORT && load_le(message + 4, 4) == index;
}

/* The plaintext, or why there is none; NULL with an exception. */
static PyObject *open_one(const uint8_t *key, uint32_t index, uint8_t *window, const uint8_t *message, Py_ssize_t size, uint64_t limit)
{
    uint8_t nonce[NONCE_SIZE];

    if (!is_ours(message, size, index))
        return PyLong_FromLong(NOT_OURS);
    /* Read once: what is marked must be what was fresh, even if someone writes to the message meanwhile. */
    uint64_t counter = load_le(message + 8, 8);
    if (counter >= limit)
        return PyLong_FromLong(PAST_LIMIT);
    if (!window_is_fresh(window, counter))
        return PyLong_FromLong(NOT_FRESH);
    PyObject *plaintext = PyBytes_FromStringAndSize(NULL, size - OVERHEAD);
    if (plaintext == NULL)
        return NULL;
    write_nonce(nonce, counter);
    if (aead_decrypt((uint8_t *)PyBytes_AsString(plaintext), NULL, NULL, message + HEADER_SIZE, (unsigned long long)(size - HEADER_SIZE),
                     NULL, 0, nonce, key) != 0) {
        Py_DECREF(plaintext);
        return PyLong_FromLong(FORGED);
    }
    window_mark(window, counter);
    return plaintext;
}

/* Arguments */

static int expect(Py_ssize_t given, Py_ssize_t expected)
{
    if (given != expected)
        PyErr_Format(PyExc_TypeError, "%zd arguments expected, %zd given", expected, given);
    return given == expected;
}

static const uint8_t *key_from(PyObject *object)
{
    char *key;
    Py_ssize_t size;

    if (PyBytes_AsStringAndSize(object, &key, &size) < 0)
        return NULL;
    if (size != KEY_SIZE) {
        PyErr_SetString(PyExc_ValueError, "the key has not 32 octets");
        return NULL;
    }
    return (const uint8_t *)key;
}

static int index_from(PyObject *object, uint32_t *index)
{
    unsigned long value = PyLong_AsUnsignedLong(object);
    if (value == (unsigned long)-1 && PyErr_Occurred())
        return 0;
    if (value > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "an index has 32 bits");
        return 0;
    }
    *index = (uint32_t)value;
    return 1;
}

static int counter_from(PyObject *object, uint64_t *counter)
{
    *counter = PyLong_AsUnsignedLongLong(object);
    return *counter != UINT64_MAX || !PyErr_Occurred();
}

static int size_from(PyObject *object, Py_ssize_t *size)
{
    *size = PyLong_AsSsize_t(object);
    return *size != -1 || !PyErr_Occurred();
}

static int fits(const run *r, Py_ssize_t arena, Py_ssize_t out)
{
    if (r->count < 1 || r->size < 0 || r->size > MAX_SIZE || r->stride < r->size || r->size > arena)
        return 0;
    if (r->stride > 0 && r->count - 1 > (arena - r->size) / r->stride)
        return 0;
    return r->count <= out / (r->size + OVERHEAD) && (uint64_t)(r->count - 1) <= UINT64_MAX - r->counter;
}

/* Functions */

static PyObject *use_sodium(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    (void)module;
    if (!expect(given, 2))
        return NULL;
    unsigned long long seal = PyLong_AsUnsignedLongLong(args[0]), open = PyLong_AsUnsignedLongLong(args[1]);
    if (PyErr_Occurred())
        return NULL;
    aead_encrypt = (sodium_encrypt)(uintptr_t)seal;
    aead_decrypt = (sodium_decrypt)(uintptr_t)open;
    Py_RETURN_NONE;
}

static int has_sodium(void)
{
    if (aead_encrypt == NULL || aead_decrypt == NULL)
        PyErr_SetString(PyExc_RuntimeError, "use_sodium comes first");
    return aead_encrypt != NULL && aead_decrypt != NULL;
}

static PyObject *seal_messages(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    run r;
    Py_buffer arena, out;
    int done = 0;

    (void)module;
    if (!expect(given, 9) || !has_sodium() || !(r.key = key_from(args[1])) || !index_from(args[2], &r.index) ||
        !counter_from(args[3], &r.counter) || !size_from(args[5], &r.count) || !size_from(args[6], &r.size) ||
        !size_from(args[7], &r.stride))
        return NULL;
    int with_openssl = PyObject_IsTrue(args[0]);
    if (with_openssl < 0)
        return NULL;
    if (with_openssl && openssl.cipher == NULL)
        return PyErr_Format(PyExc_RuntimeError, "load_openssl comes first");
    r.openssl = with_openssl ? openssl : (libcrypto){0};
    if (PyObject_GetBuffer(args[4], &arena, PyBUF_SIMPLE) < 0)
        return NULL;
    if (PyObject_GetBuffer(args[8], &out, PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&arena);
        return NULL;
    }
    int valid = fits(&r, arena.len, out.len);
    if (valid) {
        r.plaintext = arena.buf;
        r.message = out.buf;
        PyThreadState *state = r.count * (r.size + OVERHEAD) > RELEASE_ABOVE ? PyEval_SaveThread() : NULL;
        done = seal_run(&r);
        if (state != NULL)
            PyEval_RestoreThread(state);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&arena);
    if (!valid)
        return PyErr_Format(PyExc_ValueError, "a buffer is too small, or the counters run out");
    return done ? PyLong_FromSsize_t(r.count * (r.size + OVERHEAD)) : PyErr_Format(PyExc_RuntimeError, "sealing failed");
}

static PyObject *seal_message(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    const uint8_t *key;
    uint32_t index;
    uint64_t counter;
    Py_buffer plaintext;
    PyObject *message = NULL;

    (void)module;
    if (!expect(given, 4) || !has_sodium() || !(key = key_from(args[0])) || !index_from(args[1], &index) ||
        !counter_from(args[2], &counter))
        return NULL;
    if (PyObject_GetBuffer(args[3], &plaintext, PyBUF_SIMPLE) < 0)
        return NULL;
    if (plaintext.len > MAX_SIZE)
        PyErr_SetString(PyExc_ValueError, "the plaintext is too large");
    else if ((message = PyBytes_FromStringAndSize(NULL, plaintext.len + OVERHEAD)) != NULL &&
             !seal_one(key, index, counter, plaintext.buf, plaintext.len, (uint8_t *)PyBytes_AsString(message))) {
        Py_CLEAR(message);
        PyErr_SetString(PyExc_RuntimeError, "sealing failed");
    }
    PyBuffer_Release(&plaintext);
    return message;
}

static PyObject *open_fresh(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    const uint8_t *key;
    uint32_t index;
    uint64_t limit;
    Py_buffer window, message;
    PyObject *opened = NULL;

    (void)module;
    if (!expect(given, 5) || !has_sodium() || !(key = key_from(args[0])) || !index_from(args[1], &index) || !counter_from(args[4], &limit))
        return NULL;
    if (PyObject_GetBuffer(args[2], &window, PyBUF_WRITABLE) < 0)
        return NULL;
    if (PyObject_GetBuffer(args[3], &message, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&window);
        return NULL;
    }
    if (window.len != WINDOW_OCTETS)
        PyErr_SetString(PyExc_ValueError, "the window has another size");
    else
        opened = open_one(key, index, window.buf, message.buf, message.len, limit);
    PyBuffer_Release(&message);
    PyBuffer_Release(&window);
    return opened;
}

static PyObject *load_openssl(PyObject *module, PyObject *args)
{
    const char *name;
    int is_loaded;
    libcrypto found = {0};

    (void)module;
    if (!PyArg_ParseTuple(args, "sp:load_openssl", &name, &is_loaded))
        return NULL;
    const char *reason = libcrypto_open(name, is_loaded, &found);
    if (reason != NULL)
        return PyErr_Format(PyExc_ImportError, "%s: %s", name, reason);
    openssl = found;
    Py_RETURN_NONE;
}

#define FASTCALL(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}

static PyMethodDef methods[] = {
    FASTCALL(use_sodium),
    FASTCALL(seal_messages),
    FASTCALL(seal_message),
    FASTCALL(open_fresh),
    {"load_openssl", load_openssl, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "raptor_s3.wireguard._arena", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__arena(void)
{
    return PyModuleDef_Init(&module);
}
