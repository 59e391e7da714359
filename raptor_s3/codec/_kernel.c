/* raptor_s3.codec._kernel: the Python face of the arithmetic (see _raptorq.h). Buffers in, octets out, every bound checked here;
   ValueError when one is broken. The GIL is released where there is more than about 64 KiB of work. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "_raptorq.h"

#define RELEASE_ABOVE 65536u

typedef struct {
    PyObject *const *items;
    Py_ssize_t count, next;
    Py_buffer buffers[6];
    int held;
} arguments;

static void let_go(arguments *a) {
    while (a->held) PyBuffer_Release(&a->buffers[--a->held]);
}

static int expect(const arguments *a, Py_ssize_t count) {
    if (a->count == count) return 1;
    PyErr_Format(PyExc_TypeError, "%zd arguments expected, %zd given", count, a->count);
    return 0;
}

/* The next argument as a contiguous buffer. */
static const Py_buffer *buffer(arguments *a, int flags) {
    Py_buffer *view = &a->buffers[a->held];
    if (PyObject_GetBuffer(a->items[a->next], view, flags) < 0) return NULL;
    a->next++;
    a->held++;
    return view;
}

/* The next argument as an integer in least..most. */
static int number(arguments *a, size_t least, size_t most, size_t *value) {
    *value = PyLong_AsSize_t(a->items[a->next]);
    if (*value == (size_t)-1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) return 0;
        PyErr_Clear();
    } else if (*value >= least && *value <= most) {
        a->next++;
        return 1;
    }
    PyErr_Format(PyExc_ValueError, "argument %zd is not in %zu..%zu", a->next + 1, least, most);
    return 0;
}

static int code_of(arguments *a, rq_code *code) {
    const Py_buffer *view = buffer(a, PyBUF_SIMPLE);
    if (!view) return 0;
    if (rq_open(code, view->buf, (size_t)view->len) == RQ_OK) return 1;
    PyErr_SetString(PyExc_ValueError, "not a plan");
    return 0;
}

static PyObject *refuse(int status, const char *message) {
    if (status == RQ_NO_MEMORY) return PyErr_NoMemory();
    PyErr_SetString(PyExc_ValueError, message);
    return NULL;
}

static PyThreadState *release_for(size_t work) { return work > RELEASE_ABOVE ? PyEval_SaveThread() : NULL; }

static void take_back(PyThreadState *state) {
    if (state) PyEval_RestoreThread(state);
}

static PyObject *octets(size_t size) {
    if (size > (size_t)PY_SSIZE_T_MAX / 2) return PyErr_NoMemory();
    return PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
}

#define OCTETS_AT(object) ((uint8_t *)PyBytes_AsString(object))

/* data, start, length, symbols (K), size (T): a source block inside an object */
static int source_of(arguments *a, const rq_code *code, rq_source *source) {
    const Py_buffer *data = buffer(a, PyBUF_SIMPLE);
    size_t start;
    if (!data || !number(a, 0, (size_t)data->len, &start) || !number(a, 0, (size_t)data->len - start, &source->length) ||
        !number(a, 1, code->padded, &source->symbols) || !number(a, 1, 0xFFFF, &source->size))
        return 0;
    source->data = (const uint8_t *)data->buf + start;
    const size_t whole = (source->symbols - 1) * source->size;
    if (source->length >= whole && source->length - whole <= source->size) return 1;
    PyErr_SetString(PyExc_ValueError, "the source block is not of K symbols");
    return 0;
}

PyDoc_STRVAR(make_plan_doc,
             "make_plan(header) -> bytes\n\nThe plan with a generator for the K' of `header`. ValueError if A is singular.");

static PyObject *make_plan(PyObject *module, PyObject *const *items, Py_ssize_t count) {
    (void)module;
    arguments a = {.items = items, .count = count};
    rq_code code;
    PyObject *plan = NULL;
    if (!expect(&a, 1) || !code_of(&a, &code)) goto done;
    plan = octets(rq_plan_size(&code));
    if (!plan) goto done;
    memcpy(OCTETS_AT(plan), a.buffers[0].buf, RQ_HEADER);
    PyThreadState *state = release_for((size_t)code.total * code.padded);
    const int status = rq_make_generator(&code, OCTETS_AT(plan) + RQ_HEADER);
    take_back(state);
    if (status != RQ_OK) {
        Py_DECREF(plan);
        plan = refuse(status, "A is singular");
    }
done:
    let_go(&a);
    return plan;
}

PyDoc_STRVAR(make_intermediate_doc, "make_intermediate(plan, data, start, length, symbols, size) -> bytes\n\nThe L intermediate "
                                    "symbols of a source block, back to back.");

static PyObject *make_intermediate(PyObject *module, PyObject *const *items, Py_ssize_t count) {
    (void)module;
    arguments a = {.items = items, .count = count};
    rq_code code;
    rq_source source;
    PyObject *intermediate = NULL;
    if (!expect(&a, 6) || !code_of(&a, &code) || !source_of(&a, &code, &source)) goto done;
    intermediate = octets(code.total * source.size);
    if (!intermediate) goto done;
    PyThreadState *state = release_for(code.total * source.size);
    const int status = rq_make_intermediate(&code, &source, OCTETS_AT(intermediate));
    take_back(state);
    if (status != RQ_OK) {
        Py_DECREF(intermediate);
        intermediate = refuse(status, "A is singular");
    }
done:
    let_go(&a);
    return intermediate;
}

PyDoc_STRVAR(write_packets_doc,
             "write_packets(plan, intermediate, data, start, length, symbols, size, arena, offset, stride, prefix, sbn, "
             "first_esi, count) -> int\n\n"
             "Write prefix || payload id || symbol at offset, offset + stride, ...; the offset after the last slot.\n"
             "`intermediate` is only read where the plan has no generator; pass b'' elsewhere.");

static PyObject *write_packets(PyObject *module, PyObject *const *items, Py_ssize_t argument_count) {
    (void)module;
    arguments a = {.items = items, .count = argument_count};
    rq_code code;
    rq_source source;
    rq_slots slots;
    PyObject *end = NULL;
    size_t offset, sbn, first_esi, count;
    const Py_buffer *intermediate, *arena, *prefix;
    if (!expect(&a, 14) || !code_of(&a, &code) || !(intermediate = buffer(&a, PyBUF_SIMPLE)) || !source_of(&a, &code, &source) ||
        !(arena = buffer(&a, PyBUF_WRITABLE)) || !number(&a, 0, (size_t)arena->len, &offset) ||
        !number(&a, 0, PY_SSIZE_T_MAX, &slots.stride) || !(prefix = buffer(&a, PyBUF_SIMPLE)) || !number(&a, 0, 255, &sbn) ||
        !number(&a, 0, RQ_MAX_ESI, &first_esi) || !number(&a, 0, RQ_MAX_ESI + 1 - first_esi, &count))
        goto done;
    const size_t slot = (size_t)prefix->len + 4 + source.size, room = (size_t)arena->len - offset;
    if (slots.stride < slot || (count && (slot > room || (room - slot) / slots.stride < count - 1))) {
        PyErr_Format(PyExc_ValueError, "%zu slots of %zu octets, %zu apart from %zu, in an arena of %zd", count, slot,
                     slots.stride, offset, arena->len);
        goto done;
    }
    const int needed = !code.masks && first_esi + count > source.symbols && count;
    if (needed && (size_t)intermediate->len != code.total * source.size) {
        PyErr_SetString(PyExc_ValueError, "neither a generator nor intermediate symbols");
        goto done;
    }
    slots.at = (uint8_t *)arena->buf + offset;
    slots.prefix = prefix->buf;
    slots.prefix_length = (size_t)prefix->len;
    slots.sbn = (uint32_t)sbn;
    slots.first_esi = (uint32_t)first_esi;
    slots.count = (uint32_t)count;
    const size_t repairs =
        first_esi + count > source.symbols ? (first_esi > source.symbols ? count : first_esi + count - source.symbols) : 0;
    PyThreadState *state = release_for(repairs * source.size * (code.masks ? source.symbols : 8));
    const int status = rq_write_packets(&code, intermediate->buf, &source, &slots);
    take_back(state);
    end = status == RQ_OK ? PyLong_FromSize_t(offset + count * slots.stride) : refuse(status, "no packets");
done:
    let_go(&a);
    return end;
}

/* A list of `count` ESIs as numbers. */
static uint32_t *esis_of(PyObject *list, size_t count) {
    if (!PyList_Check(list) || (size_t)PyList_Size(list) != count) {
        PyErr_SetString(PyExc_ValueError, "not one ESI per symbol");
        return NULL;
    }
    uint32_t *esis = PyMem_Malloc(count * sizeof *esis + 1);
    if (!esis) PyErr_NoMemory();
    for (size_t i = 0; esis && i < count; i++) {
        const size_t esi = PyLong_AsSize_t(PyList_GetItem(list, (Py_ssize_t)i));
        if (esi > RQ_MAX_ESI) {
            if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_OverflowError))
                PyErr_SetString(PyExc_ValueError, "an ESI above 2^24 - 1");
            PyMem_Free(esis);
            return NULL;
        }
        esis[i] = (uint32_t)esi;
    }
    return esis;
}

PyDoc_STRVAR(
    decode_doc,
    "decode(plan, last_plan, received, offset, stride, count, esis, blocks, size, length) -> (distinct, missing, data or "
    "None)\n\n"
    "An object of `length` octets, cut into `blocks` source blocks, from `count` symbols at offset, offset + stride, ...\n"
    "`plan` is the first block's, `last_plan` the last one's. `esis` is a list of a number per symbol, for one block, and\n"
    "`received` is writable and may be overwritten; with None, the four octets before each symbol are its payload id.\n"
    "`distinct` is a tuple of a number per block, `missing` says how many more symbols are needed at least.");

/* The object, and the GIL while it is made. */
typedef struct {
    PyThreadState *state;
    PyObject *data;
    size_t length;
} making;

static uint8_t *make_data(void *context) {
    making *m = context;
    const int released = m->state != NULL;
    take_back(m->state);
    m->data = octets(m->length);
    m->state = released ? PyEval_SaveThread() : NULL;
    return m->data ? OCTETS_AT(m->data) : NULL;
}

static PyObject *decoded(const rq_result *result, size_t blocks, PyObject *data) {
    PyObject *distinct = PyTuple_New((Py_ssize_t)blocks), *missing = PyLong_FromSize_t(result->missing), *all = NULL;
    for (size_t sbn = 0; distinct && sbn < blocks; sbn++) {
        PyObject *count = PyLong_FromSize_t(result->distinct[sbn]);
        if (!count || PyTuple_SetItem(distinct, (Py_ssize_t)sbn, count) < 0) Py_CLEAR(distinct);
    }
    if (distinct && missing) all = PyTuple_Pack(3, distinct, missing, data ? data : Py_None);
    Py_XDECREF(distinct);
    Py_XDECREF(missing);
    return all;
}

static PyObject *decode(PyObject *module, PyObject *const *items, Py_ssize_t argument_count) {
    (void)module;
    arguments a = {.items = items, .count = argument_count};
    rq_code longer, shorter;
    rq_received received = {0};
    rq_object object;
    PyObject *all = NULL;
    uint32_t *esis = NULL;
    size_t offset;
    const Py_buffer *view;
    if (!expect(&a, 10)) return NULL;
    received.may_overwrite = items[6] != Py_None;
    if (!code_of(&a, &longer) || !code_of(&a, &shorter) ||
        !(view = buffer(&a, received.may_overwrite ? PyBUF_WRITABLE : PyBUF_SIMPLE)) ||
        !number(&a, 0, (size_t)view->len, &offset) || !number(&a, 1, PY_SSIZE_T_MAX, &received.stride) ||
        !number(&a, 0, RQ_MAX_BLOCKS * (RQ_MAX_ESI + 1ull), &received.count))
        goto done;
    if (received.may_overwrite && !(esis = esis_of(items[a.next], received.count))) goto done;
    received.esis = esis;
    a.next++;
    if (!number(&a, 1, esis ? 1 : RQ_MAX_BLOCKS, &object.blocks) || !number(&a, 1, 0xFFFF, &object.size) ||
        !number(&a, 0, PY_SSIZE_T_MAX, &object.length))
        goto done;
    object.symbols = object.length ? (object.length - 1) / object.size + 1 : 1;
    object.least = object.symbols / object.blocks;
    object.longer = object.symbols % object.blocks;
    const size_t room = (size_t)view->len - offset;
    if (!object.least || object.least > shorter.padded || object.least + (object.longer > 0) > longer.padded ||
        (!esis && offset < 4) ||
        (received.count && (object.size > room || (room - object.size) / received.stride < received.count - 1))) {
        PyErr_SetString(PyExc_ValueError, "symbols or source blocks out of bounds");
        goto done;
    }
    received.at = (uint8_t *)view->buf + offset;
    making m = {.length = object.length};
    rq_result result;
    result.make = make_data;
    result.context = &m;
    result.out = NULL;
    m.state = release_for(object.symbols * object.size);
    const int status = rq_decode(&longer, &shorter, &received, &object, &result);
    take_back(m.state);
    all = status < 0 ? refuse(status, "no object") : decoded(&result, object.blocks, status == RQ_OK ? m.data : NULL);
    Py_XDECREF(m.data);
done:
    PyMem_Free(esis);
    let_go(&a);
    return all;
}

PyDoc_STRVAR(product_doc, "product(coefficients, rows, terms, size) -> bytes\n\nThe matrix product over GF(256) of (n x terms) "
                          "coefficients and (terms x size) rows.");

static PyObject *product(PyObject *module, PyObject *const *items, Py_ssize_t argument_count) {
    (void)module;
    arguments a = {.items = items, .count = argument_count};
    PyObject *result = NULL;
    size_t terms, size;
    const Py_buffer *coefficients, *rows;
    if (!expect(&a, 4) || !(coefficients = buffer(&a, PyBUF_SIMPLE)) || !(rows = buffer(&a, PyBUF_SIMPLE)) ||
        !number(&a, 1, RQ_MAX_SYMBOLS, &terms) || !number(&a, 1, 0xFFFF, &size))
        goto done;
    if ((size_t)coefficients->len % terms || (size_t)rows->len != terms * size) {
        PyErr_SetString(PyExc_ValueError, "coefficients or rows out of shape");
        goto done;
    }
    const size_t count = (size_t)coefficients->len / terms;
    const uint8_t **from = PyMem_Malloc((terms + count + 1) * sizeof *from);
    result = octets(count * size);
    if (from && result) {
        uint8_t **to = (uint8_t **)(from + terms);
        for (size_t j = 0; j < terms; j++) from[j] = (const uint8_t *)rows->buf + j * size;
        for (size_t i = 0; i < count; i++) to[i] = OCTETS_AT(result) + i * size;
        rq_arithmetic_now()->product(to, count, coefficients->buf, terms, from, terms, size);
    } else {
        Py_CLEAR(result);
        PyErr_NoMemory();
    }
    PyMem_Free((void *)from);
done:
    let_go(&a);
    return result;
}

PyDoc_STRVAR(implementations_doc,
             "implementations() -> tuple[str, ...]\n\nThe instruction sets that this CPU can run, best first.");

static PyObject *implementations(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    Py_ssize_t count = 0;
    while (rq_arithmetic_at((size_t)count)) count++;
    PyObject *names = PyTuple_New(count);
    for (Py_ssize_t i = 0; names && i < count; i++) {
        PyObject *name = PyUnicode_FromString(rq_arithmetic_at((size_t)i)->name);
        if (!name || PyTuple_SetItem(names, i, name) < 0) Py_CLEAR(names);
    }
    return names;
}

PyDoc_STRVAR(choose_doc, "choose(name) -> str\n\nUse this instruction set from now on, in every thread; the one used before. "
                         "ValueError if the CPU lacks it.");

static PyObject *choose(PyObject *module, PyObject *name) {
    (void)module;
    for (size_t i = 0; rq_arithmetic_at(i); i++) {
        if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, rq_arithmetic_at(i)->name) == 0) {
            PyObject *before = PyUnicode_FromString(rq_arithmetic_now()->name);
            if (before) rq_choose(rq_arithmetic_at(i));
            return before;
        }
    }
    return PyErr_Format(PyExc_ValueError, "this CPU can't run %R", name);
}

static PyMethodDef methods[] = {
    {"make_plan", (PyCFunction)(void (*)(void))make_plan, METH_FASTCALL, make_plan_doc},
    {"make_intermediate", (PyCFunction)(void (*)(void))make_intermediate, METH_FASTCALL, make_intermediate_doc},
    {"write_packets", (PyCFunction)(void (*)(void))write_packets, METH_FASTCALL, write_packets_doc},
    {"decode", (PyCFunction)(void (*)(void))decode, METH_FASTCALL, decode_doc},
    {"product", (PyCFunction)(void (*)(void))product, METH_FASTCALL, product_doc},
    {"implementations", implementations, METH_NOARGS, implementations_doc},
    {"choose", choose, METH_O, choose_doc},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
    (void)module;
    rq_initialise();
    return 0;
}

static PyModuleDef_Slot slots_of_module[] = {{Py_mod_exec, (void *)execute}, {0, NULL}};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_kernel",
                                 .m_doc = "GF(256) and RaptorQ arithmetic on buffers.", .m_methods = methods,
                                 .m_slots = slots_of_module};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&definition); }
