/* OpenSSL's ChaCha20-Poly1305 for runs of transport messages, out of a libcrypto found at run time: no header of OpenSSL is needed to
 * build, and no libcrypto to run. Included by _arena.c alone; arena.py decides which libcrypto, and tests it before use.
 *
 * Invariant: every return value is checked; what fails leaves zeros, and nothing in OpenSSL's error queue. */

#ifndef RAPTOR_S3_LIBCRYPTO_H
#define RAPTOR_S3_LIBCRYPTO_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __linux__
#include <dlfcn.h>
#endif

#define EVP_CTRL_AEAD_GET_TAG 0x10 /* openssl/evp.h */

/* The part of openssl/evp.h and openssl/err.h that 1.1.1 and 3 share. */
typedef struct {
    void *cipher;
    void *(*context_new)(void);
    void (*context_free)(void *);
    int (*encrypt_init)(void *, const void *, void *, const uint8_t *, const uint8_t *);
    int (*encrypt_update)(void *, uint8_t *, int *, const uint8_t *, int);
    int (*encrypt_final)(void *, uint8_t *, int *);
    int (*context_ctrl)(void *, int, int, void *);
    void (*clear_errors)(void);
} libcrypto;

/* Begin messages under `key`; NULL on failure. A context belongs to one call: it must not be in two threads. */
static void *libcrypto_begin(const libcrypto *openssl, const uint8_t *key)
{
    void *context = openssl->context_new();
    if (context != NULL && openssl->encrypt_init(context, openssl->cipher, NULL, key, NULL) != 1) {
        openssl->context_free(context);
        context = NULL;
    }
    if (context == NULL)
        openssl->clear_errors();
    return context;
}

/* Ciphertext and tag (16 octets) of `size` octets into `out`; 0 on failure. */
static int libcrypto_seal(const libcrypto *openssl, void *context, const uint8_t *nonce, const uint8_t *plaintext, int size, uint8_t *out)
{
    /* What is no multiple of 1,024 costs a tenth more in one piece with AVX-512, where 16 blocks are the unit. */
    int first = size > 1024 ? size & ~1023 : size, rest = size - first, written = 0, final = 0;
    int good = openssl->encrypt_init(context, NULL, NULL, NULL, nonce) == 1;

    if (good && first > 0)
        good = openssl->encrypt_update(context, out, &written, plaintext, first) == 1 && written == first;
    if (good && rest > 0)
        good = openssl->encrypt_update(context, out + first, &written, plaintext + first, rest) == 1 && written == rest;
    if (good)
        good = openssl->encrypt_final(context, out + size, &final) == 1 && final == 0;
    if (good)
        good = openssl->context_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, out + size) == 1;
    if (good)
        return 1;
    openssl->clear_errors(); /* they are the thread's, and the ssl module would take them for its own */
    memset(out, 0, (size_t)size + 16);
    return 0;
}

#ifdef __linux__

static const struct {
    const char *name;
    size_t offset;
} libcrypto_functions[] = {
    {"EVP_CIPHER_CTX_new", offsetof(libcrypto, context_new)},     {"EVP_CIPHER_CTX_free", offsetof(libcrypto, context_free)},
    {"EVP_EncryptInit_ex", offsetof(libcrypto, encrypt_init)},    {"EVP_EncryptUpdate", offsetof(libcrypto, encrypt_update)},
    {"EVP_EncryptFinal_ex", offsetof(libcrypto, encrypt_final)},  {"EVP_CIPHER_CTX_ctrl", offsetof(libcrypto, context_ctrl)},
    {"ERR_clear_error", offsetof(libcrypto, clear_errors)},
};

/* Fill `found` from an open library. NULL, or why it will not do. */
static const char *libcrypto_bind(void *library, libcrypto *found)
{
    unsigned long (*version_num)(void);
    void *(*fetch)(void *, const char *, const char *);
    void *(*chacha20_poly1305)(void);

    *(void **)&version_num = dlsym(library, "OpenSSL_version_num");
    unsigned long version = version_num != NULL ? version_num() : 0;
    int is_3 = version >> 28 == 3, is_1_1_1 = version >> 12 == 0x10101;
    if (!is_3 && !is_1_1_1)
        return "neither OpenSSL 3 nor 1.1.1";
    for (size_t i = 0; i < sizeof libcrypto_functions / sizeof *libcrypto_functions; i++) {
        void *address = dlsym(library, libcrypto_functions[i].name);
        if (address == NULL)
            return "a function is missing";
        memcpy((char *)found + libcrypto_functions[i].offset, &address, sizeof address);
    }
    *(void **)&fetch = dlsym(library, "EVP_CIPHER_fetch");
    *(void **)&chacha20_poly1305 = dlsym(library, "EVP_chacha20_poly1305");
    if (is_3 && fetch != NULL)
        found->cipher = fetch(NULL, "ChaCha20-Poly1305", NULL); /* kept for good: fetching costs more than sealing */
    else if (is_1_1_1 && chacha20_poly1305 != NULL)
        found->cipher = chacha20_poly1305();
    found->clear_errors();
    return found->cipher != NULL ? NULL : "no ChaCha20-Poly1305";
}

/* Open library `name`, if `is_loaded` only where the process has it already. NULL, or why it will not do. */
static const char *libcrypto_open(const char *name, int is_loaded, libcrypto *found)
{
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL | (is_loaded ? RTLD_NOLOAD : 0));
    if (library == NULL)
        return is_loaded ? "not loaded" : "not found";
    const char *reason = libcrypto_bind(library, found);
    if (reason != NULL)
        dlclose(library);
    return reason;
}

#else

/* macOS aborts processes that open its libcrypto; Windows has none of its own. */
static const char *libcrypto_open(const char *name, int is_loaded, libcrypto *found)
{
    (void)name;
    (void)is_loaded;
    (void)found;
    return "only looked for on Linux";
}

#endif
#endif
