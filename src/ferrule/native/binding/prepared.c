/* prepared.c: one method of one instance as a Python callable, for hot loops.
 *
 * The only file with Python.h, and no part of the host's C: what cffi puts around a call (a wrapper, a tuple, conversions, a
 * slice of a buffer) costs three times what this does. It lies in the same file as cffi's module, and door.py loads it from
 * there. Bytes for bytes is all that it does itself; anything else is Python's to encode, decode and raise. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "internal.h"

#define SPARE 8                                /* more threads than these at once each make an answer for one call */

typedef struct {
    PyObject_HEAD
    PyObject *owner;                           /* keeps the instance */
    PyObject *encode, *decode, *failed;
    fh_instance *instance;
    fh_answer *spare[SPARE];                   /* the one that was used last first: it is in the cache */
    int32_t method;
} prepared;

/* Swaps alone, so that this holds without a GIL too. A signal's handler may call in between. */
static fh_answer *answer_take(prepared *self) {
    for (int i = 0; i < SPARE; i++) {
        fh_answer *answer = fh_swap_pointer(&self->spare[i], NULL);
        if (FH_LIKELY(answer != NULL)) {
            return answer;
        }
    }
    return fh_answer_new(FH_ANSWER_BYTES, FH_ANSWER_LIMIT);
}

static void answer_give(prepared *self, fh_answer *answer) {
    if (FH_LIKELY(answer->out.capacity <= FH_ANSWER_KEPT)) {
        for (int i = 0; i < SPARE && answer != NULL; i++) {
            answer = fh_swap_pointer(&self->spare[i], answer);
        }
    }
    fh_answer_free(answer);
}

/* The output; None where the plugin skips; NULL where it failed, and `failed` has raised. */
static PyObject *output(const prepared *self, const fh_answer *answer, int32_t status) {
    const fh_buffer *error = &answer->error, *metadata = &answer->metadata;
    if (FH_LIKELY(status == FERRULE_OK)) {
        return PyBytes_FromStringAndSize((const char *)answer->out.data, (Py_ssize_t)answer->out.lent.len);
    }
    if (status == FERRULE_SKIP) {
        return Py_NewRef(Py_None);
    }
    return PyObject_CallFunction(self->failed, "iy#y#", (int)status, error->data, (Py_ssize_t)error->lent.len,
                                 metadata->data, (Py_ssize_t)metadata->lent.len);
}

/* (record, returns=None), either by its name too. */
static int arguments(PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject *given[2]) {
    static const char *const known[2] = {"record", "returns"};
    const Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    int fits = count <= 2;
    for (Py_ssize_t i = 0; fits && i < count + named; i++) {
        Py_ssize_t at = i;
        if (i >= count) {
            PyObject *name = PyTuple_GetItem(names, i - count);
            for (at = 0; at < 2 && PyUnicode_CompareWithASCIIString(name, known[at]) != 0; at++) {
            }
        }
        fits = at < 2 && given[at] == NULL;
        if (fits) {
            given[at] = args[i];
        }
    }
    if (!fits || given[0] == NULL) {
        PyErr_SetString(PyExc_TypeError, "a prepared method takes a record, and 'returns' if need be, each once");
        return 0;
    }
    return 1;
}

static PyObject *call(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    prepared *self = (prepared *)object;
    PyObject *given[2] = {NULL, NULL};
    if (FH_LIKELY(count == 1 && names == NULL)) {
        given[0] = args[0];
    } else if (!arguments(args, count, names, given)) {
        return NULL;
    }
    PyObject *record = given[0], *returns = given[1] == NULL ? Py_None : given[1];
    PyObject *data = PyBytes_CheckExact(record) ? Py_NewRef(record)
                                                : PyObject_CallFunctionObjArgs(self->encode, record, NULL);
    char *in;
    Py_ssize_t in_len;
    if (data == NULL || PyBytes_AsStringAndSize(data, &in, &in_len) < 0) {
        Py_XDECREF(data);
        return NULL;
    }
    fh_answer *answer = answer_take(self);
    if (answer == NULL) {
        Py_DECREF(data);
        return PyErr_NoMemory();
    }
    int32_t status;
    Py_BEGIN_ALLOW_THREADS
    status = fh_call(self->instance, self->method, (const uint8_t *)in, (size_t)in_len, answer);
    Py_END_ALLOW_THREADS
    const int usual = data == record && returns == Py_None && status == FERRULE_OK && answer->out.lent.len > 0;
    PyObject *made = output(self, answer, status);
    answer_give(self, answer);
    if (FH_UNLIKELY(!usual && made != NULL)) {
        PyObject *plain = made;
        made = PyObject_CallFunctionObjArgs(self->decode, plain, record, returns, NULL);
        Py_DECREF(plain);
    }
    Py_DECREF(data);
    return made;
}

/* ---- the type -------------------------------------------------------------------------------------- */

static PyObject *prepared_new(PyTypeObject *type, PyObject *args, PyObject *named) {
    static char *names[] = {"owner", "instance", "method", "encode", "decode", "failed", NULL};
    PyObject *owner, *encode, *decode, *failed;
    unsigned long long instance;
    int method;
    if (!PyArg_ParseTupleAndKeywords(args, named, "OKiOOO", names, &owner, &instance, &method, &encode, &decode,
                                     &failed)) {
        return NULL;
    }
    prepared *self = (prepared *)PyType_GenericAlloc(type, 0);
    if (self != NULL) {
        self->owner = Py_NewRef(owner);
        self->encode = Py_NewRef(encode);
        self->decode = Py_NewRef(decode);
        self->failed = Py_NewRef(failed);
        self->instance = (fh_instance *)(uintptr_t)instance;
        self->method = method;
    }
    return (PyObject *)self;
}

/* No clear: it never changes, as a tuple does not, so that something else in a cycle can be cleared. */
static int prepared_traverse(PyObject *object, visitproc visit, void *arg) {
    prepared *self = (prepared *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->owner);
    Py_VISIT(self->encode);
    Py_VISIT(self->decode);
    Py_VISIT(self->failed);
    return 0;
}

static void prepared_dealloc(PyObject *object) {
    prepared *self = (prepared *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    for (int i = 0; i < SPARE; i++) {
        fh_answer_free(self->spare[i]);
    }
    Py_XDECREF(self->failed);
    Py_XDECREF(self->decode);
    Py_XDECREF(self->encode);
    Py_XDECREF(self->owner);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyMethodDef prepared_methods[] = {
    {"call", (PyCFunction)(void (*)(void))call, METH_FASTCALL | METH_KEYWORDS,
     "call($self, /, record, returns=None)\n--\n\nA record in, its answer out: see ferrule.Instance.method."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot prepared_slots[] = {
    {Py_tp_doc, "Prepared(owner, instance, method, encode, decode, failed)\n--\n\n"
                "A method, ready to be called: ``.call(record, returns=None)``, any thread.\n\n"
                "Args:\n"
                "    owner: Kept; keeps the C instance.\n"
                "    instance: Its address.\n"
                "    method: The method's number.\n"
                "    encode: ``encode(record)``: bytes of a record that is none.\n"
                "    decode: ``decode(output, record, returns)``: the answer, of the output (None where the plugin\n"
                "        skips). Not asked where the record is bytes, and so is the answer to be, and there is one.\n"
                "    failed: ``failed(status, error, metadata)`` raises; metadata is None or bytes."},
    {Py_tp_new, (void *)prepared_new},
    {Py_tp_traverse, (void *)prepared_traverse},
    {Py_tp_dealloc, (void *)prepared_dealloc},
    {Py_tp_methods, prepared_methods},
    {0, NULL},
};

static PyType_Spec prepared_spec = {
    "ferrule.native.door.Prepared", sizeof(prepared), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, prepared_slots,
};

static int module_exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &prepared_spec, NULL);
    const int done = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return done;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)module_exec},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_prepared", NULL, 0, NULL, module_slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__prepared(void) { return PyModuleDef_Init(&module); }
