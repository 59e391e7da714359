/* JSON as headers and states carry it (compact_json.py), the plain cases: written as compact_json.encode does, read without white space,
 * fractions and \u. What is not plain is no error: nothing comes of it, and an exception may be set or not.
 *
 * Invariants: as in _wire.c. */

#define PY_SSIZE_T_CLEAN
#include "_json.h"

#include <string.h>

/* What a text read may have that holds escapes. */
#define ESCAPED_ROOM 1024
/* Objects in an object: `Metadata` is one, and has none itself. */
#define DEPTH 1
/* More digits may not fit 64 bits. */
#define MAX_DIGITS 18

/* Writing */

int wire_put(wire_writer *w, const void *octets, Py_ssize_t size)
{
    if (size > w->end - w->at)
        return 0;
    memcpy(w->at, octets, (size_t)size);
    w->at += size;
    return 1;
}

const uint8_t *wire_octets_of(PyObject *text, Py_ssize_t most, Py_ssize_t *size)
{
    if (PyUnicode_GetLength(text) > most)
        return NULL;
    const char *octets = PyUnicode_AsUTF8AndSize(text, size);
    return octets != NULL && *size <= most ? (const uint8_t *)octets : NULL;
}

static int put_text(wire_writer *w, PyObject *text)
{
    Py_ssize_t size;
    if (w->end - w->at < 2)
        return 0;
    /* Between two quotes each octet may need a reverse solidus. */
    const uint8_t *octets = wire_octets_of(text, (w->end - w->at - 2) / 2, &size);
    uint8_t *at = w->at;

    if (octets == NULL)
        return 0;
    *at++ = '"';
    for (Py_ssize_t i = 0; i < size; i++) {
        if (octets[i] < 0x20)
            return 0;
        if (octets[i] == '"' || octets[i] == '\\')
            *at++ = '\\';
        *at++ = octets[i];
    }
    *at++ = '"';
    w->at = at;
    return 1;
}

static int put_number(wire_writer *w, PyObject *number)
{
    char digits[MAX_DIGITS + 2];
    int first = sizeof digits;
    long long value = PyLong_AsLongLong(number);

    if (value < 0 || value >= 1000000000000000000) /* MAX_DIGITS; -1 for an error */
        return 0;
    do
        digits[--first] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    return wire_put(w, digits + first, (Py_ssize_t)sizeof digits - first);
}

static int put_object(wire_writer *w, PyObject *object, int depth);

static int put_value(wire_writer *w, PyObject *value, int depth)
{
    if (PyUnicode_CheckExact(value))
        return put_text(w, value);
    if (PyLong_CheckExact(value))
        return put_number(w, value);
    if (PyDict_CheckExact(value))
        return depth > 0 && put_object(w, value, depth - 1);
    if (value == Py_True)
        return wire_put(w, "true", 4);
    if (value == Py_False)
        return wire_put(w, "false", 5);
    return value == Py_None && wire_put(w, "null", 4);
}

static int put_object(wire_writer *w, PyObject *object, int depth)
{
    PyObject *name, *value;
    Py_ssize_t position = 0;
    const char *before = "{";

    while (PyDict_Next(object, &position, &name, &value)) {
        if (!PyUnicode_CheckExact(name) || !wire_put(w, before, 1) || !put_text(w, name) || !wire_put(w, ":", 1) || !put_value(w, value, depth))
            return 0;
        before = ",";
    }
    return (*before == ',' || wire_put(w, before, 1)) && wire_put(w, "}", 1);
}

int wire_put_object(wire_writer *w, PyObject *object)
{
    return put_object(w, object, DEPTH);
}

/* Reading */

typedef struct {
    const uint8_t *at, *end;
    int names_once; /* a name that stands twice is no plain case; else the last one counts */
} reader;

static int take(reader *r, uint8_t octet)
{
    if (r->at >= r->end || *r->at != octet)
        return 0;
    r->at++;
    return 1;
}

/* The octet that a reverse solidus and `octet` stand for; 0 for none. */
static uint8_t unescaped(uint8_t octet)
{
    switch (octet) {
    case '"':
    case '\\':
    case '/':
        return octet;
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return 0;
    }
}

/* The rest of a text that began at `start`; `r` is at its first reverse solidus. */
static PyObject *read_escaped(reader *r, const uint8_t *start)
{
    uint8_t text[ESCAPED_ROOM];
    Py_ssize_t size = r->at - start;

    if (size > ESCAPED_ROOM)
        return NULL;
    memcpy(text, start, (size_t)size);
    while (r->at < r->end && size < ESCAPED_ROOM) {
        uint8_t octet = *r->at++;
        if (octet == '"')
            return PyUnicode_FromStringAndSize((const char *)text, size);
        if (octet == '\\')
            octet = r->at < r->end ? unescaped(*r->at++) : 0;
        else if (octet < 0x20)
            return NULL;
        if (octet == 0)
            return NULL;
        text[size++] = octet;
    }
    return NULL;
}

/* CPython checks the UTF-8, as strictly as str(..., "utf-8"). */
static PyObject *read_text(reader *r)
{
    if (!take(r, '"'))
        return NULL;
    const uint8_t *start = r->at;
    while (r->at < r->end && *r->at != '"' && *r->at != '\\' && *r->at >= 0x20)
        r->at++;
    if (r->at < r->end && *r->at == '\\')
        return read_escaped(r, start);
    Py_ssize_t size = r->at - start;
    return take(r, '"') ? PyUnicode_FromStringAndSize((const char *)start, size) : NULL;
}

static PyObject *read_number(reader *r)
{
    const uint8_t *start = r->at;
    long long value = 0;

    while (r->at < r->end && *r->at >= '0' && *r->at <= '9' && r->at - start < MAX_DIGITS)
        value = 10 * value + (*r->at++ - '0');
    /* No digits, or a zero in front: its twin knows. What goes on with more digits, `.` or `e` fails at the next `,` or `}`. */
    if (r->at == start || (*start == '0' && r->at - start > 1))
        return NULL;
    return PyLong_FromLongLong(value);
}

static PyObject *read_word(reader *r, const char *word, PyObject *value)
{
    size_t size = strlen(word);
    if ((size_t)(r->end - r->at) < size || memcmp(r->at, word, size) != 0)
        return NULL;
    r->at += size;
    return Py_NewRef(value);
}

static PyObject *read_object(reader *r, int depth);

static PyObject *read_value(reader *r, int depth)
{
    switch (r->at < r->end ? *r->at : 0) {
    case '"':
        return read_text(r);
    case '{':
        return depth > 0 ? read_object(r, depth - 1) : NULL;
    case 't':
        return read_word(r, "true", Py_True);
    case 'f':
        return read_word(r, "false", Py_False);
    case 'n':
        return read_word(r, "null", Py_None);
    default:
        return read_number(r);
    }
}

static int read_member(reader *r, PyObject *object, int depth)
{
    PyObject *name = read_text(r);
    PyObject *value = name != NULL && take(r, ':') ? read_value(r, depth) : NULL;
    int good = value != NULL && PyDict_SetItem(object, name, value) == 0;

    Py_XDECREF(value);
    Py_XDECREF(name);
    return good;
}

static PyObject *read_object(reader *r, int depth)
{
    PyObject *object = take(r, '{') ? PyDict_New() : NULL;
    Py_ssize_t members = 0;

    if (object == NULL || take(r, '}'))
        return object;
    do
        if (!read_member(r, object, depth)) {
            Py_DECREF(object);
            return NULL;
        }
    while (members++, take(r, ','));
    if (!take(r, '}') || (r->names_once && PyDict_Size(object) != members))
        Py_CLEAR(object);
    return object;
}

PyObject *wire_read_object(const uint8_t *octets, Py_ssize_t size, int names_once)
{
    reader r = {octets, octets + size, names_once};
    PyObject *object = read_object(&r, DEPTH);

    if (r.at != r.end)
        Py_CLEAR(object);
    return object;
}
