/* What the compiled parts have in common: vectors of the processor, and looking at arrays. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) /* vectors of AVX2, which processors have had since 2013 */
#define TARGET __attribute__((target("avx2,fma")))
#else
#define TARGET
#endif
#define INLINE static inline __attribute__((always_inline))
#define SHARED static __attribute__((unused))

/* Return whether the processor has what TARGET takes for granted; if not, raise ImportError. */
SHARED int processor_serves(void)
{
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return PyErr_SetString(PyExc_ImportError, "this processor has no AVX2 or FMA"), 0;
#endif
    return 1;
}

/* The format of numbers as the buffer protocol gives it; one of these letters. */
#define FLOAT32 "f"
#define FLOAT64 "d"
#define INT64 "lq"

/* Look at the memory of an array of a format, or raise ValueError. */
SHARED int look(PyObject *object, Py_buffer *view, int flags, const char *format, const char *name)
{
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags))
        return -1;
    Py_ssize_t wide = *format == 'f' ? 4 : 8; /* "l" has 4 bytes on some machines */
    if (strlen(view->format) == 1 && strchr(format, *view->format) && view->itemsize == wide)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected %s, got format %s", name,
                 *format == 'f' ? "float32" : *format == 'd' ? "float64" : "int64", view->format);
    PyBuffer_Release(view);
    return -1;
}

/* The same for [rows, columns] of float32; -1 stands for any number. */
SHARED int as_floats(PyObject *object, Py_buffer *view, int flags, Py_ssize_t rows,
                     Py_ssize_t columns, const char *name)
{
    if (look(object, view, flags, FLOAT32, name))
        return -1;
    if (view->ndim != 2)
        PyErr_Format(PyExc_ValueError, "%s: expected two axes, got %d", name, view->ndim);
    else if ((rows >= 0 && view->shape[0] != rows) || (columns >= 0 && view->shape[1] != columns))
        PyErr_Format(PyExc_ValueError, "%s: expected shape [%zd, %zd], got [%zd, %zd]", name, rows,
                     columns, view->shape[0], view->shape[1]);
    else
        return 0;
    PyBuffer_Release(view);
    return -1;
}

/* The same for `size` numbers of a format, on any axes; -1 stands for any number. */
SHARED int as_vector(PyObject *object, Py_buffer *view, int flags, Py_ssize_t size,
                     const char *format, const char *name)
{
    if (look(object, view, flags, format, name))
        return -1;
    if (size < 0 || view->len == size * view->itemsize)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected %zd numbers, got %zd", name, size,
                 view->len / view->itemsize);
    PyBuffer_Release(view);
    return -1;
}
