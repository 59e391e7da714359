/* libFuzzer target for the C kernel's entry points, called as Python calls them: an embedded interpreter, real argument objects,
   and every object from malloc, so that ASan sees each octet beyond one.

   Two kinds of input. "Arguments": any function with arguments near the valid ones, or anything: an exception or a result, never
   a crash. "Round trip": a source block, some of its packets, and back: what is decoded must be what was encoded.

   Built and run by fuzz/codec.sh. */

#include <Python.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

PyMODINIT_FUNC PyInit__kernel(void);

#define PLANS 12
static PyObject *module, *plans[PLANS], *headers[PLANS];
static long symbols_of[PLANS];
static const char *const FUNCTIONS[] = {"make_plan", "make_intermediate", "write_packets", "decode", "product"};

typedef struct {
    const uint8_t *at;
    size_t left;
} input;

static unsigned take(input *in, unsigned bound) { /* 0 .. bound - 1 */
    unsigned value = 0;
    for (unsigned reach = 1; reach < bound && in->left; reach <<= 8) {
        value = value << 8 | *in->at++;
        in->left--;
    }
    return bound ? value % bound : 0;
}

static void must(int holds, const char *what) {
    if (holds) return;
    if (PyErr_Occurred()) PyErr_Print();
    fprintf(stderr, "violated: %s\n", what);
    abort();
}

static PyObject *octets(input *in, size_t size, int writable) {
    uint8_t *memory = malloc(size + 1);
    for (size_t i = 0; i < size; i++) memory[i] = in->left ? in->at[i % in->left] : (uint8_t)i;
    PyObject *object = writable ? PyByteArray_FromStringAndSize((char *)memory, (Py_ssize_t)size)
                                : PyBytes_FromStringAndSize((char *)memory, (Py_ssize_t)size);
    free(memory);
    return object;
}

/* A number near the one that would be right, or a far one. */
static PyObject *number(input *in, size_t right) {
    switch (take(in, 8)) {
    case 0: return PyLong_FromLong((long)take(in, 70000) - 2);
    case 1: return PyLong_FromUnsignedLongLong(~0ull - take(in, 5));
    case 2: return PyLong_FromSsize_t(PY_SSIZE_T_MAX - (Py_ssize_t)take(in, 300));
    case 3: return PyLong_FromSsize_t((Py_ssize_t)right + (Py_ssize_t)take(in, 7) - 3);
    default: return PyLong_FromSize_t(right);
    }
}

static PyObject *plan_object(input *in, unsigned which, int *mutated) {
    PyObject *plan = take(in, 3) ? plans[which] : headers[which];
    *mutated = take(in, 4) == 0;
    if (!*mutated) return Py_NewRef(plan);
    Py_ssize_t size = PyBytes_GET_SIZE(plan);
    if (take(in, 4) == 0) size = (Py_ssize_t)take(in, (unsigned)size + 1);
    PyObject *copy = PyBytes_FromStringAndSize(PyBytes_AS_STRING(plan), size);
    for (unsigned changes = take(in, 6); changes && size > 4; changes--) {
        const unsigned at = take(in, take(in, 2) ? 64 : 4384);
        if (at >= 4 && at < (unsigned)size)
            PyBytes_AS_STRING(copy)[at] = (char)take(in, 256); /* K' stays, or one input takes minutes */
    }
    return copy;
}

static void any_arguments(input *in) {
    const unsigned which = take(in, PLANS), function = take(in, 5);
    const size_t k = (size_t)symbols_of[which], size = 1 + take(in, 300), count = take(in, 80);
    PyObject *arguments[14];
    size_t n = 0;
    int mutated;
    arguments[n++] = plan_object(in, which, &mutated);
    if (function == 1 || function == 2) {
        const size_t length = k * size - take(in, (unsigned)size), start = take(in, 9), prefix = take(in, 40),
                     stride = prefix + 4 + size + take(in, 5);
        if (function == 2) arguments[n++] = octets(in, take(in, 2) ? 0 : (size_t)take(in, 3000), 0);
        arguments[n++] = octets(in, start + length + take(in, 3), 0);
        arguments[n++] = number(in, start);
        arguments[n++] = number(in, length);
        arguments[n++] = number(in, k);
        arguments[n++] = number(in, size);
        if (function == 2) {
            const size_t offset = take(in, 9);
            arguments[n++] = octets(in, offset + count * stride, take(in, 8) != 0);
            arguments[n++] = number(in, offset);
            arguments[n++] = number(in, stride);
            arguments[n++] = octets(in, prefix, 0);
            arguments[n++] = number(in, take(in, 256));
            arguments[n++] = number(in, take(in, 2) ? take(in, (unsigned)k + 9) : take(in, 1u << 24));
            arguments[n++] = number(in, count);
        }
    } else if (function == 3) {
        const size_t stride = size + take(in, 9), with_ids = take(in, 2), held = k + take(in, 9), offset = with_ids ? 4 : 0,
                     blocks = with_ids && take(in, 2) ? 1 + take(in, 4) : 1;
        arguments[n++] = plan_object(in, take(in, 4) ? which : take(in, PLANS), &mutated);
        arguments[n++] = octets(in, offset + held * stride, !with_ids || take(in, 2));
        arguments[n++] = number(in, offset);
        arguments[n++] = number(in, with_ids && stride < size + 4 ? size + 4 : stride);
        arguments[n++] = number(in, held);
        if (with_ids) {
            arguments[n++] = Py_NewRef(Py_None);
        } else {
            PyObject *esis = PyList_New((Py_ssize_t)held);
            for (size_t i = 0; i < held; i++)
                PyList_SET_ITEM(esis, (Py_ssize_t)i,
                                PyLong_FromUnsignedLong(take(in, 4) ? take(in, (unsigned)k + 20) : take(in, 1u << 24)));
            arguments[n++] = esis;
        }
        arguments[n++] = number(in, blocks);
        arguments[n++] = number(in, size);
        arguments[n++] = number(in, k * (take(in, 2) ? blocks : 1) * size - take(in, (unsigned)size));
    } else if (function == 4) {
        const size_t terms = 1 + take(in, 40);
        Py_DECREF(arguments[0]);
        arguments[0] = octets(in, terms * take(in, 20) + (take(in, 9) == 0), 0);
        arguments[n++] = octets(in, terms * size, 0);
        arguments[n++] = number(in, terms);
        arguments[n++] = number(in, size);
    }
    const size_t given = take(in, 16) == 0 ? take(in, (unsigned)n + 1) : n;
    PyObject *call = PyObject_GetAttrString(module, FUNCTIONS[function]);
    PyObject *result = PyObject_Vectorcall(call, arguments, given, NULL);
    must((result == NULL) == (PyErr_Occurred() != NULL), "a result or an exception");
    PyErr_Clear();
    Py_XDECREF(result);
    Py_DECREF(call);
    for (size_t i = 0; i < n; i++) Py_DECREF(arguments[i]);
}

#define BLOCKS 3

static void round_trip(input *in) {
    const unsigned which = take(in, PLANS), first_of_all = take(in, 4) ? 0 : take(in, 1u << 23);
    const size_t k = (size_t)symbols_of[which], size = 1 + take(in, 200), short_by = take(in, (unsigned)size), slot = 4 + size,
                 sent = k + k / 2 + 12;
    const int sparse = take(in, 3) == 0, in_list = take(in, 2) == 0;
    const size_t blocks = in_list ? 1 : 1 + take(in, BLOCKS), length = blocks * k * size - short_by, kept = k + take(in, 6);
    const unsigned step = 1 + take(in, 7);
    PyObject *plan = sparse ? headers[which] : plans[which];
    PyObject *data = octets(in, length, 0), *arena = octets(in, sent * slot, 1), *esis = PyList_New((Py_ssize_t)kept);
    uint8_t *chosen = malloc(blocks * kept * slot), *seen = malloc(sent);
    size_t distinct[BLOCKS] = {0}, lacking = 0;
    for (size_t sbn = 0; sbn < blocks; sbn++) {
        const size_t start = sbn * k * size, part = sbn + 1 < blocks ? k * size : length - start;
        PyObject *intermediate = sparse
                                     ? PyObject_CallMethod(module, "make_intermediate", "OOnnnn", plan, data, (Py_ssize_t)start,
                                                           (Py_ssize_t)part, (Py_ssize_t)k, (Py_ssize_t)size)
                                     : PyBytes_FromStringAndSize("", 0);
        must(intermediate != NULL, "intermediate symbols");
        PyObject *end = PyObject_CallMethod(module, "write_packets", "OOOnnnnOnnyIIn", plan, intermediate, data,
                                            (Py_ssize_t)start, (Py_ssize_t)part, (Py_ssize_t)k, (Py_ssize_t)size, arena,
                                            (Py_ssize_t)0, (Py_ssize_t)slot, "", (unsigned)sbn, first_of_all, (Py_ssize_t)sent);
        must(end != NULL && PyLong_AsSize_t(end) == sent * slot, "packets");
        Py_DECREF(end);
        Py_DECREF(intermediate);
        memset(seen, 0, sent);
        for (size_t i = 0; i < kept; i++) {
            const size_t at = (i * step + take(in, 3)) % sent;
            distinct[sbn] += !seen[at];
            seen[at] = 1;
            memcpy(chosen + (sbn * kept + i) * slot, PyByteArray_AS_STRING(arena) + at * slot, slot);
            if (sbn == 0) PyList_SET_ITEM(esis, (Py_ssize_t)i, PyLong_FromUnsignedLong(first_of_all + (unsigned long)at));
        }
        if (distinct[sbn] < k) lacking += k - distinct[sbn];
    }
    PyObject *received = PyByteArray_FromStringAndSize((char *)chosen, (Py_ssize_t)(blocks * kept * slot));
    PyObject *result = PyObject_CallMethod(module, "decode", "OOOnnnOnnn", plan, plan, received, (Py_ssize_t)4, (Py_ssize_t)slot,
                                           (Py_ssize_t)(blocks * kept), in_list ? esis : Py_None, (Py_ssize_t)blocks,
                                           (Py_ssize_t)size, (Py_ssize_t)length);
    must(result != NULL, "decode");
    PyObject *told = PyTuple_GET_ITEM(result, 0), *object = PyTuple_GET_ITEM(result, 2);
    const size_t missing = PyLong_AsSize_t(PyTuple_GET_ITEM(result, 1));
    must((size_t)PyTuple_GET_SIZE(told) == blocks, "a number per block");
    for (size_t sbn = 0; sbn < blocks; sbn++)
        must(PyLong_AsSize_t(PyTuple_GET_ITEM(told, (Py_ssize_t)sbn)) == distinct[sbn], "distinct symbols counted");
    must((missing == 0) == (object != Py_None), "missing says whether it is decoded");
    must(!lacking || missing == lacking, "too few symbols say how many");
    if (object != Py_None) must(PyObject_RichCompareBool(object, data, Py_EQ) == 1, "decoded is what was encoded");
    free(chosen);
    free(seen);
    Py_DECREF(result);
    Py_DECREF(received);
    Py_DECREF(esis);
    Py_DECREF(arena);
    Py_DECREF(data);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.allocator = PYMEM_ALLOCATOR_MALLOC;
    must(!PyStatus_Exception(Py_PreInitialize(&before)), "preinitialise");
    PyImport_AppendInittab("_kernel", PyInit__kernel);
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    const char *home = getenv("FUZZ_PYTHON_HOME");
    if (home) PyConfig_SetBytesString(&config, &config.home, home);
    must(!PyStatus_Exception(Py_InitializeFromConfig(&config)), "initialise");
    module = PyImport_ImportModule("_kernel");
    must(module != NULL, "import");
    FILE *file = fopen(getenv("FUZZ_CODEC_HEADERS"), "rb"); /* (u32 K, header) x PLANS, by fuzz/codec.sh */
    must(file != NULL, "FUZZ_CODEC_HEADERS");
    for (int i = 0; i < PLANS; i++) {
        uint32_t symbols;
        char header[4384];
        must(fread(&symbols, 4, 1, file) == 1 && fread(header, sizeof header, 1, file) == 1, "headers");
        symbols_of[i] = symbols;
        headers[i] = PyBytes_FromStringAndSize(header, sizeof header);
        plans[i] = PyObject_CallMethod(module, "make_plan", "O", headers[i]);
        must(plans[i] != NULL, "plan");
    }
    fclose(file);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, size};
    PyObject *names = PyObject_CallMethod(module, "implementations", NULL);
    PyObject *before =
        PyObject_CallMethod(module, "choose", "O", PyTuple_GET_ITEM(names, take(&in, (unsigned)PyTuple_GET_SIZE(names))));
    must(before != NULL, "choose");
    Py_DECREF(before);
    Py_DECREF(names);
    if (take(&in, 2))
        any_arguments(&in);
    else
        round_trip(&in);
    return 0;
}
