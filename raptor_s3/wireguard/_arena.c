/* Transport messages by the hundred (whitepaper 5.4.6): the loop of raptor_s3.wireguard.arena, without Python between two datagrams.
 *
 * The AEAD is libsodium's own function, handed over by address from PyNaCl's binding: no cryptography lives here. Every length is checked
 * against its buffer before the first octet is written. The Python twin in arena.py gives the same bytes. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define KEY_SIZE 32
#define HEADER_SIZE 16
#define OVERHEAD 32
#define TYPE_TRANSPORT 4

/* crypto_aead_chacha20poly1305_ietf_encrypt(c, clen_p, m, mlen, ad, adlen, nsec, npub, k) */
typedef int (*aead_encrypt)(unsigned char *, unsigned long long *, const unsigned char *, unsigned long long, const unsigned char *,
                            unsigned long long, const unsigned char *, const unsigned char *, const unsigned char *);

static void store_le(uint8_t *out, uint64_t value, int octets)
{
    for (int i = 0; i < octets; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

static int fits(Py_ssize_t count, Py_ssize_t size, Py_ssize_t stride, Py_ssize_t arena, Py_ssize_t out)
{
    if (count < 1 || size < 0 || stride < size || size > arena || size > PY_SSIZE_T_MAX - OVERHEAD)
        return 0;
    if (stride > 0 && count - 1 > (arena - size) / stride)
        return 0;
    return count <= out / (size + OVERHEAD);
}

static PyObject *seal_messages(PyObject *module, PyObject *args)
{
    unsigned long long address, counter;
    unsigned long index;
    Py_ssize_t count, size, stride;
    Py_buffer key, arena, out;

    (void)module;
    if (!PyArg_ParseTuple(args, "Ky*kKy*nnnw*:seal_messages", &address, &key, &index, &counter, &arena, &count, &size, &stride, &out))
        return NULL;
    int valid = address != 0 && key.len == KEY_SIZE && fits(count, size, stride, arena.len, out.len);
    if (valid) {
        aead_encrypt encrypt = (aead_encrypt)(uintptr_t)address;
        const uint8_t *plaintext = arena.buf;
        uint8_t *message = out.buf;
        uint8_t nonce[12] = {0};

        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < count; i++) {
            store_le(message, TYPE_TRANSPORT, 4);
            store_le(message + 4, index, 4);
            store_le(message + 8, counter, 8);
            store_le(nonce + 4, counter, 8);
            encrypt(message + HEADER_SIZE, NULL, plaintext, (unsigned long long)size, NULL, 0, NULL, nonce, key.buf);
            plaintext += stride;
            message += size + OVERHEAD;
            counter++;
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&arena);
    PyBuffer_Release(&key);
    if (!valid) {
        PyErr_SetString(PyExc_ValueError, "a buffer is too small, or the key has not 32 octets");
        return NULL;
    }
    return PyLong_FromSsize_t(count * (size + OVERHEAD));
}

static PyMethodDef methods[] = {
    {"seal_messages", seal_messages, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "raptor_s3.wireguard._arena", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__arena(void)
{
    return PyModuleDef_Init(&module);
}
