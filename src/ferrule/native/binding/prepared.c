/* prepared.c: one method of one instance as Python callables, for hot loops.
 *
 * The only file with Python.h, and no part of the host's C: what cffi puts around a call (a wrapper, a tuple, conversions, a
 * slice of a buffer) costs three times what this does. It lies in the same file as cffi's module, and door.py loads it from
 * there. Bytes for bytes is all that it does itself; anything else is Python's to encode, decode and raise. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "internal.h"

#define SPARE 8                                /* more threads than these at once each make an answer for one call */
#define LARGE 0x8000                           /* an answer that is written where Python will have it: 32 KiB */

typedef struct {
    PyObject_HEAD
    PyObject *owner;                           /* keeps the instance */
    PyObject *encode, *decode, *failed;
    fh_instance *instance;
    fh_answer *spare[SPARE];                   /* the one that was used last first: it is in the cache */
    int32_t method;
    uint64_t expected;                         /* as long as the last answer was */
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
    if (FH_LIKELY(answer->out.capacity <= FH_KEPT_MOST)) {
        for (int i = 0; i < SPARE && answer != NULL; i++) {
            answer = fh_swap_pointer(&self->spare[i], answer);
        }
    }
    fh_answer_free(answer);
}

/* A large answer is written into the bytes that it will be, as long as the one before was and a little more, so that it is
 * not copied. */
typedef struct {
    PyObject *bytes;                           /* NULL: it is not lent */
    fh_buffer own;                             /* the answer's, meanwhile */
} loan;

static const loan no_loan;

static loan lend(prepared *self, fh_answer *answer) {
    loan made = no_loan;
    const uint64_t expected = fh_load64(&self->expected);
    if (FH_UNLIKELY(expected >= LARGE)) {
        const uint64_t size = expected + expected / 16 < FH_ANSWER_LIMIT ? expected + expected / 16 : FH_ANSWER_LIMIT;
        made.bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
        if (made.bytes == NULL) {
            PyErr_Clear();                     /* the plugin may still have room */
        } else {
            made.own = answer->out;
            fh_buffer_begin_in(&answer->out, (uint8_t *)PyBytes_AsString(made.bytes), (size_t)size);
        }
    }
    return made;
}

/* Cuts bytes that nobody else has seen; what _PyBytes_Resize does, which the stable ABI lacks. Little is not given back:
 * glibc would take a block that shrinks before it is freed from the system anew each time, page by page. */
static PyObject *cut(PyObject *bytes, size_t length) {
    const size_t head = (size_t)(PyBytes_AsString(bytes) - (char *)bytes), size = (size_t)PyBytes_Size(bytes);
    if (size - length > size / 8) {
        PyObject *made = PyObject_Realloc(bytes, head + length + 1);
        bytes = made == NULL ? bytes : made;
    }
    Py_SET_SIZE((PyVarObject *)bytes, (Py_ssize_t)length);
    PyBytes_AsString(bytes)[length] = 0;
    return bytes;
}

/* What was written, of which the first `length` bytes count; the answer has its own buffer again. */
static PyObject *take_back(prepared *self, fh_answer *answer, loan *lent, size_t length) {
    fh_put64(&self->expected, length);
    if (FH_UNLIKELY(lent->bytes != NULL)) {
        if (answer->out.data == (uint8_t *)PyBytes_AsString(lent->bytes)) {
            answer->out = lent->own;
            return cut(lent->bytes, length);
        }
        Py_DECREF(lent->bytes);                /* it became longer than that */
        fh_buffer_free(&lent->own);
    }
    return PyBytes_FromStringAndSize((const char *)answer->out.data, (Py_ssize_t)length);
}

/* The output; None where the plugin skips; NULL where it failed, and `failed` has raised. */
static PyObject *output(prepared *self, fh_answer *answer, loan *lent, int32_t status) {
    const fh_buffer *error = &answer->error, *metadata = &answer->metadata;
    if (FH_LIKELY(status == FERRULE_OK)) {
        return take_back(self, answer, lent, answer->out.lent.len);
    }
    if (lent->bytes != NULL) {
        Py_XDECREF(take_back(self, answer, lent, 0));
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
    loan lent = lend(self, answer);
    Py_BEGIN_ALLOW_THREADS
    status = fh_call(self->instance, self->method, (const uint8_t *)in, (size_t)in_len, answer);
    Py_END_ALLOW_THREADS
    const int usual = data == record && returns == Py_None && status == FERRULE_OK && answer->out.lent.len > 0;
    PyObject *made = output(self, answer, &lent, status);
    answer_give(self, answer);
    if (FH_UNLIKELY(!usual && made != NULL)) {
        PyObject *plain = made;
        made = PyObject_CallFunctionObjArgs(self->decode, plain, record, returns, NULL);
        Py_DECREF(plain);
    }
    Py_DECREF(data);
    return made;
}

/* ---- many records ----------------------------------------------------------------------------------- */

/* The inputs as C takes them, in one block with room for the results behind them: records of a list or a tuple, which `held`
 * keeps, or the lines of bytes. NULL: it has raised. */
static fh_span *spans_of(PyObject *records, PyObject **held, uint32_t *rows) {
    char *data;
    Py_ssize_t length, count;
    fh_span *spans = NULL;
    const int lines = PyBytes_Check(records);
    *held = lines ? Py_NewRef(records) : PySequence_Tuple(records);
    if (*held == NULL || (lines && PyBytes_AsStringAndSize(records, &data, &length) < 0)) {
        return NULL;
    }
    count = lines ? (Py_ssize_t)fh_count_lines((const uint8_t *)data, (size_t)length) : PyTuple_Size(*held);
    if ((uint64_t)count > UINT32_MAX / 2) {
        PyErr_SetString(PyExc_OverflowError, "too many records for one call: more than two billion");
        return NULL;
    }
    spans = PyMem_Malloc((size_t)(count + 1) * (sizeof(fh_span) + sizeof(fh_result)));
    if (spans == NULL) {
        PyErr_NoMemory();
    } else if (lines) {
        fh_split_lines((const uint8_t *)data, (size_t)length, spans);
    } else {
        for (Py_ssize_t i = 0; i < count; i++) {
            if (PyBytes_AsStringAndSize(PyTuple_GetItem(*held, i), &data, &length) < 0) {
                PyMem_Free(spans);
                return NULL;
            }
            spans[i] = (fh_span){(const uint8_t *)data, (size_t)length};
        }
    }
    *rows = (uint32_t)count;
    return spans;
}

static PyObject *list_of(const fh_buffer *out, const fh_result *results, uint32_t called) {
    const char *at = (const char *)out->data;
    PyObject *list = PyList_New((Py_ssize_t)called);
    for (uint32_t i = 0; i < called && list != NULL; i++) {
        const int fine = results[i].status == FERRULE_OK;
        PyObject *answer = fine ? PyBytes_FromStringAndSize(at, (Py_ssize_t)results[i].length) : Py_NewRef(Py_None);
        if (answer == NULL || PyList_SetItem(list, (Py_ssize_t)i, answer) < 0) {
            Py_CLEAR(list);
        }
        at += fine ? results[i].length : 0;
    }
    return list;
}

static PyObject *many(PyObject *object, PyObject *args) {
    prepared *self = (prepared *)object;
    PyObject *records, *held = NULL, *made = NULL;
    int lines, stop_at_error;
    uint32_t rows = 0, called, unusual;
    if (!PyArg_ParseTuple(args, "Opp:many", &records, &lines, &stop_at_error)) {
        return NULL;
    }
    fh_span *spans = spans_of(records, &held, &rows);
    fh_answer *answer = spans == NULL ? NULL : answer_take(self);
    if (answer != NULL) {
        fh_result *results = (fh_result *)(spans + rows);
        loan lent = lines ? lend(self, answer) : no_loan;
        Py_BEGIN_ALLOW_THREADS
        called = fh_call_many(self->instance, self->method, spans, rows, lines, stop_at_error, answer, results, &unusual);
        Py_END_ALLOW_THREADS
        made = lines ? take_back(self, answer, &lent, answer->out.lent.len) : list_of(&answer->out, results, called);
        if (made != NULL) {
            const fh_buffer *errors = &answer->metadata;     /* its data may be NULL, which "y#" would make None of */
            made = Py_BuildValue("Ny#ON", made, (const char *)results, (Py_ssize_t)(called * sizeof *results),
                                 unusual ? Py_False : Py_True,
                                 PyBytes_FromStringAndSize((const char *)errors->data, (Py_ssize_t)errors->lent.len));
        }
        answer_give(self, answer);
    } else if (spans != NULL) {
        PyErr_NoMemory();
    }
    PyMem_Free(spans);
    Py_XDECREF(held);
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
    {"many", many, METH_VARARGS,
     "many($self, records, lines, stop_at_error, /)\n--\n\nMany records in, their answers out: see NativeObject.call_many."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot prepared_slots[] = {
    {Py_tp_doc, "Prepared(owner, instance, method, encode, decode, failed)\n--\n\n"
                "A method, ready to be called: ``.call(record, returns=None)``, or ``.many``; any thread.\n\n"
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
