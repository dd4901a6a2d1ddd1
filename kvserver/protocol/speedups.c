/* The inner steps of decoding and encoding, compiled. What each does is said, in Python, in pure.py.
 *
 * Nothing here keeps anything between calls or changes an object that another thread could have, so it is right with
 * and without a global interpreter lock. What is read belongs to the bytes object given, which the caller holds.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define SHORT_COUNT 64      /* as in pure.py */
#define SHORT_LENGTH 16384
#define MAX_DIGITS 5        /* of either */

typedef struct {
    const char *text;
    int length;
} Word;

/* Read a line of `kind` and a number without leading zeros, of at most `most`; -1 if it is not whole, or no such line.
 * On success `*place` is behind the line. */
static int
read_header(const char **place, const char *end, char kind, int most)
{
    const char *at = *place;
    if (at == end || *at != kind) {
        return -1;
    }
    const char *digits = ++at;
    int number = 0;
    while (at < end && at - digits < MAX_DIGITS && *at >= '0' && *at <= '9') {
        number = 10 * number + (*at++ - '0');
    }
    if (at == digits || (*digits == '0' && at - digits > 1) || number > most) {
        return -1;
    }
    if (end - at < 2 || at[0] != '\r' || at[1] != '\n') {
        return -1;
    }
    *place = at + 2;
    return number;
}

/* Find the words of the command at `*place`; how many there are, or 0 if it is not whole, or not in the short form.
 * On success `*place` is behind the command. */
static int
read_command(const char **place, const char *end, Word *words)
{
    const char *at = *place;
    int count = read_header(&at, end, '*', SHORT_COUNT);
    for (int index = 0; index < count; index++) {
        int length = read_header(&at, end, '$', SHORT_LENGTH);
        if (length < 0 || end - at < length + 2 || at[length] != '\r' || at[length + 1] != '\n') {
            return 0;
        }
        words[index].text = at;
        words[index].length = length;
        at += length + 2;
    }
    if (count <= 0) {
        return 0;
    }
    *place = at;
    return count;
}

static PyObject *
list_of_words(const Word *words, int count)
{
    PyObject *list = PyList_New(count);
    if (list == NULL) {
        return NULL;
    }
    for (int index = 0; index < count; index++) {
        PyObject *word = PyBytes_FromStringAndSize(words[index].text, words[index].length);
        if (word == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, index, word);
    }
    return list;
}

PyDoc_STRVAR(split_commands_doc,
"split_commands($module, data, /)\n--\n\n"
"The whole commands in short form that data begins with, and how many bytes they take.");

static PyObject *
split_commands(PyObject *Py_UNUSED(module), PyObject *data)
{
    if (!PyBytes_Check(data)) {
        return PyErr_Format(PyExc_TypeError, "bytes expected, not %.100s", Py_TYPE(data)->tp_name);
    }
    const char *begin = PyBytes_AS_STRING(data), *end = begin + PyBytes_GET_SIZE(data), *at = begin;
    PyObject *commands = PyList_New(0);
    if (commands == NULL) {
        return NULL;
    }
    Word words[SHORT_COUNT];
    int count;
    while ((count = read_command(&at, end, words)) > 0) {
        PyObject *command = list_of_words(words, count);
        if (command == NULL || PyList_Append(commands, command) < 0) {
            Py_XDECREF(command);
            Py_DECREF(commands);
            return NULL;
        }
        Py_DECREF(command);
    }
    return Py_BuildValue("(Nn)", commands, (Py_ssize_t)(at - begin));
}

/* Write `kind`, a number and a line end before `limit`; where they begin. */
static char *
write_line(char *limit, char kind, unsigned long long number, int is_negative)
{
    *--limit = '\n';
    *--limit = '\r';
    do {
        *--limit = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    if (is_negative) {
        *--limit = '-';
    }
    *--limit = kind;
    return limit;
}

#define LINE_SIZE 24  /* kind, sign, 19 digits, line end: 23 */

/* `header`, the text of `value` and a line end. */
static PyObject *
framed(const char *header, Py_ssize_t header_size, PyObject *value)
{
    Py_ssize_t size = PyBytes_GET_SIZE(value);
    if (size > PY_SSIZE_T_MAX - header_size - 2) {
        return PyErr_NoMemory();
    }
    PyObject *reply = PyBytes_FromStringAndSize(NULL, header_size + size + 2);
    if (reply == NULL) {
        return NULL;
    }
    char *at = PyBytes_AS_STRING(reply);
    memcpy(at, header, header_size);
    memcpy(at + header_size, PyBytes_AS_STRING(value), size);
    memcpy(at + header_size + size, "\r\n", 2);
    return reply;
}

PyDoc_STRVAR(bulk_doc, "bulk($module, value, /)\n--\n\nA bulk string.");

static PyObject *
bulk(PyObject *Py_UNUSED(module), PyObject *value)
{
    if (!PyBytes_Check(value)) {
        return PyErr_Format(PyExc_TypeError, "bytes expected, not %.100s", Py_TYPE(value)->tp_name);
    }
    char line[LINE_SIZE];
    const char *header = write_line(line + LINE_SIZE, '$', (unsigned long long)PyBytes_GET_SIZE(value), 0);
    return framed(header, line + LINE_SIZE - header, value);
}

PyDoc_STRVAR(simple_doc, "simple($module, value, /)\n--\n\nA simple string.");

static PyObject *
simple(PyObject *Py_UNUSED(module), PyObject *value)
{
    if (!PyBytes_Check(value)) {
        return PyErr_Format(PyExc_TypeError, "bytes expected, not %.100s", Py_TYPE(value)->tp_name);
    }
    return framed("+", 1, value);
}

static PyObject *
integer_of_any_size(PyObject *value)
{
    PyObject *text = PyUnicode_FromFormat(":%S\r\n", value);
    PyObject *reply = text == NULL ? NULL : PyUnicode_AsASCIIString(text);
    Py_XDECREF(text);
    return reply;
}

PyDoc_STRVAR(integer_doc, "integer($module, value, /)\n--\n\nAn integer.");

static PyObject *
integer(PyObject *Py_UNUSED(module), PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (overflow) {
        return integer_of_any_size(value);
    }
    char line[LINE_SIZE];
    unsigned long long size = number < 0 ? 0 - (unsigned long long)number : (unsigned long long)number;
    const char *start = write_line(line + LINE_SIZE, ':', size, number < 0);
    return PyBytes_FromStringAndSize(start, line + LINE_SIZE - start);
}

static PyMethodDef methods[] = {
    {"split_commands", split_commands, METH_O, split_commands_doc},
    {"bulk", bulk, METH_O, bulk_doc},
    {"simple", simple, METH_O, simple_doc},
    {"integer", integer, METH_O, integer_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef speedups = {
    PyModuleDef_HEAD_INIT,
    .m_name = "speedups",
    .m_doc = "The inner steps of decoding and encoding, compiled; see pure.py.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit_speedups(void)
{
    return PyModuleDef_Init(&speedups);
}
