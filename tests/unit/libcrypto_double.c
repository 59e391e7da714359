/* A libcrypto that forwards to the real one and can be told to fail, for tests/unit/test_wireguard_openssl.py. -DVERSION, -DMISSING,
 * -DNO_CIPHER and -DWRONG build one that must not be adopted. */

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

#ifndef VERSION
#define VERSION 0x300000b0UL
#endif

enum { NONE, CONTEXT, KEY, NONCE, UPDATE, SHORT_UPDATE, FINAL, TAG };
int failing_call = NONE;
int good_calls; /* of that kind, before the one that fails */
int contexts, raised;

static void *real(const char *name)
{
    static void *library;
    if (!library && !(library = dlopen("libcrypto.so.3", RTLD_NOW)))
        library = dlopen("libcrypto.so.1.1", RTLD_NOW);
    return dlsym(library, name);
}

/* Fails as OpenSSL does: with something in the thread's error queue. */
static int fails(int call)
{
    unsigned char block[16] = {0};
    int written;

    if (call != failing_call || good_calls-- > 0) return 0;
    void *blank = ((void *(*)(void))real("EVP_CIPHER_CTX_new"))();
    ((int (*)(void *, unsigned char *, int *, const unsigned char *, int))real("EVP_EncryptUpdate"))(blank, block, &written, block, 16);
    ((void (*)(void *))real("EVP_CIPHER_CTX_free"))(blank);
    raised += ((unsigned long (*)(void))real("ERR_peek_error"))() != 0;
    return 1;
}

int errors_raised(void) { return raised; }

int errors_left(void) { return ((unsigned long (*)(void))real("ERR_peek_error"))() != 0; }

unsigned long OpenSSL_version_num(void) { return VERSION; }

void ERR_clear_error(void) { ((void (*)(void))real("ERR_clear_error"))(); }

const void *EVP_chacha20_poly1305(void) { return ((const void *(*)(void))real("EVP_chacha20_poly1305"))(); }

void *EVP_CIPHER_fetch(void *context, const char *name, const char *properties)
{
    (void)context, (void)name, (void)properties;
#ifdef NO_CIPHER
    return NULL;
#endif
    return (void *)EVP_chacha20_poly1305();
}

void *EVP_CIPHER_CTX_new(void)
{
    if (fails(CONTEXT)) return NULL;
    contexts++;
    return ((void *(*)(void))real("EVP_CIPHER_CTX_new"))();
}

void EVP_CIPHER_CTX_free(void *context)
{
    contexts--;
    ((void (*)(void *))real("EVP_CIPHER_CTX_free"))(context);
}

int EVP_EncryptInit_ex(void *context, const void *cipher, void *engine, const unsigned char *key, const unsigned char *iv)
{
    if (fails(key ? KEY : NONCE)) return 0;
    return ((int (*)(void *, const void *, void *, const unsigned char *, const unsigned char *))real("EVP_EncryptInit_ex"))(
        context, cipher, engine, key, iv);
}

int EVP_EncryptUpdate(void *context, unsigned char *out, int *written, const unsigned char *in, int size)
{
    if (fails(UPDATE)) return 0;
    int good = ((int (*)(void *, unsigned char *, int *, const unsigned char *, int))real("EVP_EncryptUpdate"))(context, out, written, in, size);
    if (fails(SHORT_UPDATE)) --*written;
    return good;
}

int EVP_EncryptFinal_ex(void *context, unsigned char *out, int *written)
{
    if (fails(FINAL)) return 0;
    return ((int (*)(void *, unsigned char *, int *))real("EVP_EncryptFinal_ex"))(context, out, written);
}

#ifndef MISSING
int EVP_CIPHER_CTX_ctrl(void *context, int command, int size, void *value)
{
    if (fails(TAG)) return 0;
    int good = ((int (*)(void *, int, int, void *))real("EVP_CIPHER_CTX_ctrl"))(context, command, size, value);
#ifdef WRONG
    ((unsigned char *)value)[0] ^= 1;
#endif
    return good;
}
#endif
