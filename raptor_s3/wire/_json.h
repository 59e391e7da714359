/* Plain JSON objects: see _json.c. */

#ifndef RAPTOR_WIRE_JSON_H
#define RAPTOR_WIRE_JSON_H

#include <Python.h>
#include <stdint.h>

typedef struct {
    uint8_t *at, *end;
} wire_writer;

/* 0 where there is no room, and for what is not plain; what was written then is worth nothing. */
int wire_put(wire_writer *w, const void *octets, Py_ssize_t size);
int wire_put_object(wire_writer *w, PyObject *object);

/* An object, and nothing after it; NULL for what is not plain. `names_once`: a name that stands twice is not; else the last one counts. */
PyObject *wire_read_object(const uint8_t *octets, Py_ssize_t size, int names_once);

/* The octets of a str; NULL with lone surrogates, or longer than `most`. A str of non-ASCII keeps them: so not of a long one. */
const uint8_t *wire_octets_of(PyObject *text, Py_ssize_t most, Py_ssize_t *size);

#endif
