/* The wire formats' plain cases (docs/wire.md) without Python in between: the C side of put_header.py, transfer_state.py and
 * datagram.py. A sender that has slept finds its caches cold, and then every Python function on its way costs three times as much.
 *
 * A function made here does what it is sure of; everything else, errors above all, it hands to its Python twin, which is the reference.
 * What is allowed and how long it may be is handed over by Python once, when the function is made: nothing of it stands here.
 *
 * Invariants: no octet is read or written outside its buffer. Only exact str, int, bool, dict, tuple and bytes are looked into, and while
 * the caller's are, nothing is allocated that the garbage collector tracks: no code of anybody else's runs meanwhile, and borrowed references
 * last. What fails is left to the twin, errors and all. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "_json.h"

/* What is built longer than this, its twin builds. A state fits a datagram; a header has a key of 1,024 octets and a few more. */
#define ROOM 4096

#define MAGIC "rapt"
#define STATE_HEAD 9 /* magic, type, data, SBN, id_length */

#define OTI_SIZE 12 /* F, flags, T, Z, N, Al */
#define PAYLOAD_ID_SIZE 4
#define TRANSFER_ID_SIZE 22
enum { FLAG_PUT_HEADER = 1, FLAG_RFC6330_REPAIR = 2, FLAG_CANCEL = 4, KNOWN_FLAGS = 7 };

/* What a function made here is bound to: a tuple, of which the first is always its twin. */
enum { TWIN, TYPES, REQUIRED, MAX_KEY_BYTES, MAX_TTL_MS };
enum { STATE_CLASS = 1, STATE_TYPES };
enum { DATAGRAM_CLASS = 1, MAKE_OTI };
/* Places in REQUIRED. */
enum { BUCKET, KEY, CRC32, TTL_MS, REQUIRED_COUNT };

/* As for any tuple; a NamedTuple's own __new__ is a Python function. Not by allocation: a tuple of CPython 3.14 has a hash to be set. */
static newfunc tuple_new;

static uint64_t load_be(const uint8_t *octets, int count)
{
    uint64_t value = 0;
    while (count--)
        value = value << 8 | *octets++;
    return value;
}

/* `result`, or what the twin makes of `argument`. Interrupts, which a call of Python may have met, are not ours to swallow. */
static PyObject *or_twin(PyObject *result, PyObject *self, PyObject *argument)
{
    if (result != NULL || (PyErr_Occurred() != NULL && !PyErr_ExceptionMatches(PyExc_Exception)))
        return result;
    PyErr_Clear();
    return PyObject_CallFunctionObjArgs(PyTuple_GetItem(self, TWIN), argument, NULL);
}

/* Takes the references; one that is NULL makes the whole NULL. */
static PyObject *tuple_of(PyObject *const *items, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    int good = tuple != NULL;

    for (Py_ssize_t i = 0; i < count; i++) {
        good = good && items[i] != NULL;
        if (tuple != NULL)
            PyTuple_SetItem(tuple, i, items[i]);
        else
            Py_XDECREF(items[i]);
    }
    if (!good)
        Py_CLEAR(tuple);
    return tuple;
}

static PyObject *named_tuple_of(PyObject *class, PyObject *const *items, Py_ssize_t count)
{
    PyObject *const argument = tuple_of(items, count);
    PyObject *arguments = argument != NULL ? tuple_of(&argument, 1) : NULL;
    PyObject *result = arguments != NULL ? tuple_new((PyTypeObject *)class, arguments, NULL) : NULL;

    Py_XDECREF(arguments);
    return result;
}

/* The put header */

static int holds_only_text(PyObject *metadata)
{
    PyObject *name, *value;
    Py_ssize_t position = 0;

    while (PyDict_Next(metadata, &position, &name, &value))
        if (!PyUnicode_CheckExact(name) || !PyUnicode_CheckExact(value))
            return 0;
    return 1;
}

/* put_header._shape_objection has none. */
static int has_good_shape(PyObject *types, PyObject *fields)
{
    PyObject *name, *value;
    Py_ssize_t position = 0;

    while (PyDict_Next(fields, &position, &name, &value))
        if (!PyUnicode_CheckExact(name) || PyDict_GetItemWithError(types, name) != (PyObject *)Py_TYPE(value) ||
            (PyDict_CheckExact(value) && !holds_only_text(value)))
            return 0;
    return 1;
}

/* put_header._objection has none. The whitelist's types are exact ones of CPython's own, so asking them for their truth runs no code. */
static int is_in_order(PyObject *self, PyObject *fields)
{
    PyObject *required = PyTuple_GetItem(self, REQUIRED), *values[REQUIRED_COUNT];
    Py_ssize_t size;

    if (!has_good_shape(PyTuple_GetItem(self, TYPES), fields))
        return 0;
    for (int i = 0; i < REQUIRED_COUNT; i++) {
        values[i] = PyDict_GetItemWithError(fields, PyTuple_GetItem(required, i));
        if (values[i] == NULL || PyObject_IsTrue(values[i]) != 1)
            return 0;
    }
    if (!PyUnicode_CheckExact(values[BUCKET]) || !PyUnicode_CheckExact(values[KEY]) || !PyLong_CheckExact(values[TTL_MS]))
        return 0;
    const uint8_t *bucket = wire_octets_of(values[BUCKET], ROOM, &size);
    if (bucket == NULL || memchr(bucket, ':', (size_t)size) != NULL)
        return 0;
    if (wire_octets_of(values[KEY], PyLong_AsSsize_t(PyTuple_GetItem(self, MAX_KEY_BYTES)), &size) == NULL)
        return 0;
    long long ttl_ms = PyLong_AsLongLong(values[TTL_MS]);
    return ttl_ms >= 1 && ttl_ms <= PyLong_AsLongLong(PyTuple_GetItem(self, MAX_TTL_MS));
}

static PyObject *plain_put_header(PyObject *self, PyObject *fields)
{
    uint8_t header[2 + ROOM];
    wire_writer w = {header + 2, header + sizeof header};

    if (!PyDict_CheckExact(fields) || !is_in_order(self, fields) || !wire_put_object(&w, fields))
        return NULL;
    Py_ssize_t size = w.at - header;
    header[0] = (uint8_t)((size - 2) >> 8);
    header[1] = (uint8_t)(size - 2);
    return PyBytes_FromStringAndSize((const char *)header, size);
}

static PyObject *build_put_header(PyObject *self, PyObject *fields)
{
    return or_twin(plain_put_header(self, fields), self, fields);
}

/* Everything of `data` from `start` on; no octet is copied. */
static PyObject *view_from(PyObject *data, Py_ssize_t start, Py_ssize_t size)
{
    PyObject *view = PyMemoryView_FromObject(data);
    PyObject *rest = view != NULL ? PySequence_GetSlice(view, start, size) : NULL;

    Py_XDECREF(view);
    return rest;
}

static PyObject *plain_put_object(PyObject *self, PyObject *data)
{
    char *octets;
    Py_ssize_t size;

    if (!PyBytes_CheckExact(data) || PyBytes_AsStringAndSize(data, &octets, &size) < 0 || size < 2)
        return NULL;
    Py_ssize_t end = 2 + (Py_ssize_t)load_be((const uint8_t *)octets, 2);
    if (size < end)
        return NULL;
    PyObject *fields = wire_read_object((const uint8_t *)octets + 2, end - 2, 1);
    if (fields == NULL || !is_in_order(self, fields)) {
        Py_XDECREF(fields);
        return NULL;
    }
    PyObject *const items[] = {fields, view_from(data, end, size)};
    return tuple_of(items, 2);
}

static PyObject *split_put_object(PyObject *self, PyObject *data)
{
    return or_twin(plain_put_object(self, data), self, data);
}

/* The transfer state */

static PyObject *plain_transfer_state(PyObject *self, PyObject *message)
{
    char *start;
    Py_ssize_t size;

    if (!PyBytes_CheckExact(message) || PyBytes_AsStringAndSize(message, &start, &size) < 0 || size < STATE_HEAD)
        return NULL;
    const uint8_t *head = (const uint8_t *)start;
    Py_ssize_t end = STATE_HEAD + head[8];
    PyObject *type = PyTuple_GetItem(PyTuple_GetItem(self, STATE_TYPES), head[4]);
    if (memcmp(head, MAGIC, 4) != 0 || type == Py_None || end == STATE_HEAD || size < end)
        return NULL;
    PyObject *fields = size > end ? wire_read_object(head + end, size - end, 0) : Py_NewRef(Py_None);
    if (fields == NULL)
        return NULL;
    PyObject *object_id = PyUnicode_FromStringAndSize(start + STATE_HEAD, end - STATE_HEAD);
    if (object_id == NULL) {
        Py_DECREF(fields);
        return NULL;
    }
    PyObject *sbn = PyLong_FromLong(head[7]), *received = PyLong_FromLong((long)load_be(head + 5, 2));
    PyObject *const items[] = {Py_NewRef(type), object_id, sbn, received, fields};
    return named_tuple_of(PyTuple_GetItem(self, STATE_CLASS), items, 5);
}

static PyObject *parse_transfer_state(PyObject *self, PyObject *message)
{
    return or_twin(plain_transfer_state(self, message), self, message);
}

/* An int in 0..`most`; -1 for anything else. */
static long small_number(PyObject *object, long most)
{
    long value = PyLong_CheckExact(object) ? PyLong_AsLong(object) : -1;
    return value <= most ? value : -1;
}

/* The number of a type: an IntEnum's member, of which struct.pack too takes the int that it is. */
static long type_number(PyObject *type)
{
    long value = PyLong_Check(type) ? PyLong_AsLong(type) : -1;
    return value <= 0xFF ? value : -1;
}

static PyObject *plain_state_message(PyObject *self, PyObject *state)
{
    uint8_t message[STATE_HEAD + 0xFF + ROOM];
    wire_writer w = {message + STATE_HEAD, message + sizeof message};
    Py_ssize_t id_size;

    if ((PyObject *)Py_TYPE(state) != PyTuple_GetItem(self, STATE_CLASS) || PyTuple_Size(state) != 5)
        return NULL;
    PyObject *object_id = PyTuple_GetItem(state, 1), *fields = PyTuple_GetItem(state, 4);
    long type = type_number(PyTuple_GetItem(state, 0)), sbn = small_number(PyTuple_GetItem(state, 2), 0xFF);
    long received = small_number(PyTuple_GetItem(state, 3), 0xFFFF);
    if (type < 0 || sbn < 0 || received < 0 || !PyUnicode_CheckExact(object_id))
        return NULL;
    const uint8_t *id = wire_octets_of(object_id, 0xFF, &id_size);
    if (id == NULL || id_size == 0 || !wire_put(&w, id, id_size))
        return NULL;
    if (fields != Py_None && !(PyDict_CheckExact(fields) && wire_put_object(&w, fields)))
        return NULL;
    memcpy(message, MAGIC, 4);
    message[4] = (uint8_t)type;
    message[5] = (uint8_t)(received >> 8);
    message[6] = (uint8_t)received;
    message[7] = (uint8_t)sbn;
    message[8] = (uint8_t)id_size;
    return PyBytes_FromStringAndSize((const char *)message, w.at - message);
}

static PyObject *build_transfer_state(PyObject *self, PyObject *state)
{
    return or_twin(plain_state_message(self, state), self, state);
}

/* The symbol datagram */

static int is_transfer_id(const uint8_t *id, Py_ssize_t size)
{
    for (Py_ssize_t i = 0; i < size; i++)
        if (!((id[i] >= 'A' && id[i] <= 'Z') || (id[i] >= 'a' && id[i] <= 'z') || (id[i] >= '0' && id[i] <= '9') || id[i] == '-' ||
              id[i] == '_'))
            return 0;
    return size == TRANSFER_ID_SIZE;
}

/* By datagram._checked_oti, which remembers them. It is Python's: `octets` last, because the caller holds the datagram. */
static PyObject *oti_of(PyObject *self, const uint8_t *octets)
{
    PyObject *length = PyLong_FromUnsignedLongLong(load_be(octets, 5)), *oti = NULL;
    PyObject *symbol_size = PyLong_FromLong((long)load_be(octets + 6, 2)), *source_blocks = PyLong_FromLong(octets[8]);

    if (length != NULL && symbol_size != NULL && source_blocks != NULL)
        oti = PyObject_CallFunctionObjArgs(PyTuple_GetItem(self, MAKE_OTI), length, symbol_size, source_blocks, NULL);
    Py_XDECREF(source_blocks);
    Py_XDECREF(symbol_size);
    Py_XDECREF(length);
    return oti;
}

static PyObject *plain_datagram(PyObject *self, PyObject *data)
{
    char *start;
    Py_ssize_t size;

    if (!PyBytes_CheckExact(data) || PyBytes_AsStringAndSize(data, &start, &size) < 0 || size < 1)
        return NULL;
    const uint8_t *octets = (const uint8_t *)start, *id = octets + 1;
    Py_ssize_t id_size = octets[0], symbol_start = 1 + id_size + OTI_SIZE + PAYLOAD_ID_SIZE;
    if (id_size == 0 || size < symbol_start)
        return NULL;
    const uint8_t *oti = id + id_size, *payload_id = oti + OTI_SIZE;
    int flags = oti[5], symbol_size = flags & FLAG_CANCEL ? 0 : (int)load_be(oti + 6, 2);
    if (flags & ~KNOWN_FLAGS || load_be(oti + 9, 2) != 1 || oti[11] != 4 || size - symbol_start != symbol_size ||
        payload_id[0] >= oti[8] || (flags & FLAG_PUT_HEADER && !is_transfer_id(id, id_size)))
        return NULL;
    PyObject *checked = oti_of(self, oti);
    if (checked == NULL)
        return NULL;
    PyObject *object_id = PyUnicode_FromStringAndSize((const char *)id, id_size);
    PyObject *symbol = object_id != NULL ? view_from(data, symbol_start, size) : NULL;
    if (symbol == NULL) {
        Py_XDECREF(object_id);
        Py_DECREF(checked);
        return NULL;
    }
    PyObject *sbn = PyLong_FromLong(payload_id[0]), *esi = PyLong_FromLong((long)load_be(payload_id + 1, 3));
    PyObject *const items[] = {object_id, checked, PyLong_FromLong(flags), sbn, esi, symbol};
    return named_tuple_of(PyTuple_GetItem(self, DATAGRAM_CLASS), items, 6);
}

static PyObject *parse_datagram(PyObject *self, PyObject *data)
{
    return or_twin(plain_datagram(self, data), self, data);
}

/* Functions are made */

#define BOUND(name) static PyMethodDef name##_method = {#name, name, METH_O, NULL}
BOUND(build_put_header);
BOUND(split_put_object);
BOUND(parse_transfer_state);
BOUND(build_transfer_state);
BOUND(parse_datagram);

/* Takes the reference; NULL makes NULL. */
static PyObject *bound(PyMethodDef *method, PyObject *self)
{
    PyObject *function = self != NULL ? PyCFunction_NewEx(method, self, NULL) : NULL;
    Py_XDECREF(self);
    return function;
}

static PyObject *refused(const char *what)
{
    return PyErr_Format(PyExc_TypeError, "%s", what);
}

/* A copy, which nobody changes; NULL unless it goes from str to str, int, bool and dict. */
static PyObject *whitelist_of(PyObject *types)
{
    PyObject *copy = PyDict_Copy(types), *name, *type;
    Py_ssize_t position = 0;

    while (copy != NULL && PyDict_Next(copy, &position, &name, &type))
        if (!PyUnicode_CheckExact(name) || (type != (PyObject *)&PyUnicode_Type && type != (PyObject *)&PyLong_Type &&
                                            type != (PyObject *)&PyBool_Type && type != (PyObject *)&PyDict_Type)) {
            Py_CLEAR(copy);
            refused("a whitelist goes from str to str, int, bool and dict");
        }
    return copy;
}

static PyObject *for_put_headers(PyMethodDef *method, PyObject *args)
{
    PyObject *types, *required, *max_key_bytes, *max_ttl_ms, *twin;

    if (!PyArg_ParseTuple(args, "OO!O!O!O!", &twin, &PyDict_Type, &types, &PyTuple_Type, &required, &PyLong_Type, &max_key_bytes,
                          &PyLong_Type, &max_ttl_ms))
        return NULL;
    int good = PyTuple_Size(required) == REQUIRED_COUNT;
    for (int i = 0; good && i < REQUIRED_COUNT; i++)
        good = PyUnicode_CheckExact(PyTuple_GetItem(required, i));
    if (!good)
        return refused("four names are required");
    PyObject *whitelist = whitelist_of(types);
    PyObject *self = whitelist != NULL ? PyTuple_Pack(5, twin, whitelist, required, max_key_bytes, max_ttl_ms) : NULL;
    Py_XDECREF(whitelist);
    return bound(method, self);
}

static PyObject *put_header_builder(PyObject *module, PyObject *args)
{
    (void)module;
    return for_put_headers(&build_put_header_method, args);
}

static PyObject *put_object_splitter(PyObject *module, PyObject *args)
{
    (void)module;
    return for_put_headers(&split_put_object_method, args);
}

static int is_tuple_class(PyObject *class)
{
    return PyType_Check(class) && PyType_IsSubtype((PyTypeObject *)class, &PyTuple_Type);
}

static PyObject *transfer_state_parser(PyObject *module, PyObject *args)
{
    PyObject *twin, *class, *types;

    (void)module;
    if (!PyArg_ParseTuple(args, "OOO!", &twin, &class, &PyTuple_Type, &types))
        return NULL;
    if (!is_tuple_class(class) || PyTuple_Size(types) != 256)
        return refused("a class of tuples and 256 types are expected");
    return bound(&parse_transfer_state_method, PyTuple_Pack(3, twin, class, types));
}

static PyObject *transfer_state_builder(PyObject *module, PyObject *args)
{
    PyObject *twin, *class;

    (void)module;
    if (!PyArg_ParseTuple(args, "OO", &twin, &class))
        return NULL;
    if (!is_tuple_class(class))
        return refused("a class of tuples is expected");
    return bound(&build_transfer_state_method, PyTuple_Pack(2, twin, class));
}

static PyObject *datagram_parser(PyObject *module, PyObject *args)
{
    PyObject *twin, *class, *make_oti;

    (void)module;
    if (!PyArg_ParseTuple(args, "OOO", &twin, &class, &make_oti))
        return NULL;
    if (!is_tuple_class(class))
        return refused("a class of tuples is expected");
    return bound(&parse_datagram_method, PyTuple_Pack(3, twin, class, make_oti));
}

static PyMethodDef methods[] = {
    {"put_header_builder", put_header_builder, METH_VARARGS, NULL},
    {"put_object_splitter", put_object_splitter, METH_VARARGS, NULL},
    {"transfer_state_parser", transfer_state_parser, METH_VARARGS, NULL},
    {"transfer_state_builder", transfer_state_builder, METH_VARARGS, NULL},
    {"datagram_parser", datagram_parser, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int prepare(PyObject *module)
{
    (void)module;
    tuple_new = (newfunc)PyType_GetSlot(&PyTuple_Type, Py_tp_new);
    return tuple_new != NULL ? 0 : -1;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)prepare},
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "raptor_s3.wire._wire", NULL, 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__wire(void)
{
    return PyModuleDef_Init(&module);
}
