/* What learning from a replay buffer takes besides the passes of networks, each in one call.
 *
 * Batches are small, so that a dozen operations on arrays take longer to begin than to finish.
 * losses.py, mlp_kernel.py and replay_buffer.py do the same where this was not compiled.
 */
#include "_arrays.h"
#include <float.h>

#define MOST 16  /* arrays that a function looks at */
#define AHEAD 8  /* rows for which memory is fetched before they are copied */
#define READ PyBUF_SIMPLE
#define WRITE PyBUF_WRITABLE

/* The arrays that a function has looked at so far. */
typedef struct {
    Py_buffer views[MOST];
    int count;
} Arrays;

/* Return the memory of `size` numbers of a format; NULL, with an exception, if it is not that. */
static void *numbers(Arrays *arrays, PyObject *object, int flags, const char *format,
                     Py_ssize_t size, const char *name)
{
    Py_buffer *view = &arrays->views[arrays->count];
    if (as_vector(object, view, flags, size, format, name))
        return NULL;
    arrays->count++;
    return view->buf;
}

/* Return a look at an array of any format, its rows lie one after the other; or NULL. */
static const Py_buffer *rows_of_any(Arrays *arrays, PyObject *object, int flags)
{
    Py_buffer *view = &arrays->views[arrays->count];
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags))
        return NULL;
    arrays->count++;
    return view;
}

static Py_ssize_t size_of_last(const Arrays *arrays)
{
    const Py_buffer *view = &arrays->views[arrays->count - 1];
    return view->len / view->itemsize;
}

/* Let go of the arrays, and return a result: None where it is NULL and there is no exception. */
static PyObject *done(Arrays *arrays, PyObject *result)
{
    while (arrays->count)
        PyBuffer_Release(&arrays->views[--arrays->count]);
    if (result || PyErr_Occurred())
        return result;
    Py_RETURN_NONE;
}

static int counts(Py_ssize_t given, Py_ssize_t expected, const char *signature)
{
    if (given != expected)
        PyErr_SetString(PyExc_TypeError, signature);
    return given == expected;
}

/* ------------------------------------------------------------------------------------- drawing */

/* Choose `count` of the numbers below `size`, each subset as likely (Floyd's algorithm, in Bentley
 * 1987).  `table` holds those that are taken, plus 1, at the place that their hash says or behind. */
static void choose(const double *uniforms, Py_ssize_t count, Py_ssize_t size, int64_t *rows,
                   int64_t *table, size_t places)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t last = size - count + i, row = (int64_t)(uniforms[i] * (double)(last + 1));
        row = row < 0 ? 0 : row < last ? row : last;
        for (;;) {
            size_t place = ((uint64_t)row * 0x9E3779B97F4A7C15u >> 20) & (places - 1);
            while (table[place] && table[place] != row + 1)
                place = (place + 1) & (places - 1);
            if (!table[place]) {
                table[place] = row + 1;
                break;
            }
            row = last; /* which is free: no draw before reached as far */
        }
        rows[i] = row;
    }
}

static PyObject *learning_choose(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t given)
{
    Arrays arrays = {0};
    if (!counts(given, 3, "choose(uniforms, size, rows)"))
        return NULL;
    Py_ssize_t size = PyLong_AsSsize_t(args[1]);
    if (PyErr_Occurred())
        return NULL;
    const double *uniforms = numbers(&arrays, args[0], READ, FLOAT64, -1, "uniforms");
    Py_ssize_t count = uniforms ? size_of_last(&arrays) : 0;
    int64_t *rows = uniforms ? numbers(&arrays, args[2], WRITE, INT64, count, "rows") : NULL;
    if (!rows)
        return done(&arrays, NULL);
    if (count > size) {
        PyErr_Format(PyExc_ValueError, "size: expected %zd or more, got %zd", count, size);
        return done(&arrays, NULL);
    }
    size_t places = 8;
    while (places < 2 * (size_t)count)
        places *= 2;
    int64_t *table = calloc(places, sizeof *table);
    if (!table)
        return done(&arrays, PyErr_NoMemory());
    choose(uniforms, count, size, rows, table, places);
    free(table);
    return done(&arrays, NULL);
}

static void copy_rows(const char *column, const int64_t *rows, Py_ssize_t count, Py_ssize_t width,
                      char *out)
{
    for (Py_ssize_t i = 0; i < count; i++, out += width) {
        if (i + AHEAD < count)
            __builtin_prefetch(column + rows[i + AHEAD] * width);
        memcpy(out, column + rows[i] * width, width);
    }
}

static PyObject *learning_take(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t given)
{
    Arrays arrays = {0};
    if (!counts(given, 3, "take(column, rows, out)"))
        return NULL;
    const Py_buffer *column = rows_of_any(&arrays, args[0], READ);
    const int64_t *rows = column ? numbers(&arrays, args[1], READ, INT64, -1, "rows") : NULL;
    Py_ssize_t count = rows ? size_of_last(&arrays) : 0;
    const Py_buffer *out = rows ? rows_of_any(&arrays, args[2], WRITE) : NULL;
    if (!out)
        return done(&arrays, NULL);
    Py_ssize_t size = column->ndim ? column->shape[0] : 0, width = size ? column->len / size : 0;
    int fits = out->len == count * width && !strcmp(out->format, column->format) &&
               !strchr(column->format, 'O'); /* objects would have to be counted */
    for (Py_ssize_t i = 0; i < count && fits; i++)
        fits = rows[i] >= 0 && rows[i] < size;
    if (fits)
        copy_rows(column->buf, rows, count, width, out->buf);
    else
        PyErr_SetString(PyExc_ValueError, "rows, out: expected rows of the column, and their room");
    return done(&arrays, NULL);
}

/* ---------------------------------------------------------------------------------- Q-learning */

static PyObject *learning_q_targets(PyObject *Py_UNUSED(self), PyObject *const *args,
                                    Py_ssize_t given)
{
    Arrays arrays = {0};
    if (!counts(given, 6, "q_targets(rewards, dones, next_q, chooser, discount, targets)"))
        return NULL;
    float discount = (float)PyFloat_AsDouble(args[4]);
    if (PyErr_Occurred())
        return NULL;
    const float *rewards = numbers(&arrays, args[0], READ, FLOAT32, -1, "rewards");
    Py_ssize_t count = rewards ? size_of_last(&arrays) : 0;
    const float *dones = rewards ? numbers(&arrays, args[1], READ, FLOAT32, count, "dones") : NULL;
    const float *q = dones ? numbers(&arrays, args[2], READ, FLOAT32, -1, "next_q") : NULL;
    Py_ssize_t all = q ? size_of_last(&arrays) : 0, actions = count ? all / count : 0;
    const float *by = q ? numbers(&arrays, args[3], READ, FLOAT32, all, "chooser") : NULL;
    float *targets = by ? numbers(&arrays, args[5], WRITE, FLOAT32, count, "targets") : NULL;
    if (targets && count && (actions < 1 || all != count * actions))
        PyErr_SetString(PyExc_ValueError, "next_q: expected as many rows as rewards");
    else if (targets)
        for (Py_ssize_t i = 0; i < count; i++, q += actions, by += actions) {
            Py_ssize_t best = 0; /* the first NaN, if there is one, as in NumPy */
            for (Py_ssize_t a = 1; a < actions && !isnan(by[best]); a++)
                best = by[a] > by[best] || isnan(by[a]) ? a : best;
            targets[i] = rewards[i] + (1 - dones[i]) * (discount * q[best]);
        }
    return done(&arrays, NULL);
}

/* The loss of one TD error, which becomes its gradient. */
INLINE double td_loss(float *td_error, int huber)
{
    float error = *td_error, clipped = error > 1 ? 1 : error < -1 ? -1 : error;
    *td_error = huber ? clipped : 2 * error;
    return huber ? clipped * ((double)error - clipped / 2) : (double)error * error;
}

static PyObject *learning_q_loss(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t given)
{
    Arrays arrays = {0};
    if (!counts(given, 5, "q_loss(q, actions, targets, huber, gradient)"))
        return NULL;
    int huber = PyObject_IsTrue(args[3]);
    if (huber < 0)
        return NULL;
    const float *targets = numbers(&arrays, args[2], READ, FLOAT32, -1, "targets");
    Py_ssize_t count = targets ? size_of_last(&arrays) : 0;
    const int64_t *taken =
        targets ? numbers(&arrays, args[1], READ, INT64, count, "actions") : NULL;
    const float *q = taken ? numbers(&arrays, args[0], READ, FLOAT32, -1, "q") : NULL;
    Py_ssize_t all = q ? size_of_last(&arrays) : 0, actions = count ? all / count : 0;
    float *gradient = q ? numbers(&arrays, args[4], WRITE, FLOAT32, all, "gradient") : NULL;
    if (!gradient)
        return done(&arrays, NULL);
    if (!count || all != count * actions) {
        PyErr_SetString(PyExc_ValueError, "q: expected as many rows as targets, one at least");
        return done(&arrays, NULL);
    }
    double sum = 0;
    memset(gradient, 0, all * sizeof *gradient);
    for (Py_ssize_t i = 0; i < count; i++, q += actions, gradient += actions) {
        if (taken[i] < 0 || taken[i] >= actions) {
            PyErr_Format(PyExc_IndexError, "actions: expected numbers from 0 to %zd, got %lld",
                         actions - 1, (long long)taken[i]);
            return done(&arrays, NULL);
        }
        float td_error = q[taken[i]] - targets[i];
        sum += td_loss(&td_error, huber);
        gradient[taken[i]] = td_error / (float)count;
    }
    /* a loss that float32 can't hold is infinite, as everywhere else */
    return done(&arrays, PyFloat_FromDouble((float)(sum / (double)count)));
}

/* --------------------------------------------------------------------------- vectors of weights */

TARGET static void move(float *restrict from, const float *restrict to, Py_ssize_t count, float by)
{
    if (by < 0.5f) /* so that 0 leaves everything as it is, and 1 makes an exact copy */
        for (Py_ssize_t i = 0; i < count; i++)
            from[i] += by * (to[i] - from[i]);
    else
        for (Py_ssize_t i = 0; i < count; i++)
            from[i] = to[i] - (1 - by) * (to[i] - from[i]);
}

TARGET static void adam(float *restrict weights, const float *restrict gradient,
                        float *restrict mean, float *restrict square, Py_ssize_t count,
                        const double *beta, float scale, float eps, float step)
{
    float decay = (float)beta[1], rest = (float)(1 - beta[1]);
    move(mean, gradient, count, (float)(1 - beta[0]));
    for (Py_ssize_t i = 0; i < count; i++) {
        square[i] = decay * square[i] + rest * gradient[i] * gradient[i];
        weights[i] -= step * mean[i] / (sqrtf(square[i]) / scale + eps);
    }
}

static PyObject *learning_adam(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t given)
{
    static const char *const names[] = {"weights", "gradient", "mean", "square"};
    Arrays arrays = {0};
    float *vectors[4] = {NULL};
    double n[5]; /* steps, lr, beta1, beta2, eps */
    if (!counts(given, 9, "adam(weights, gradient, mean, square, steps, lr, beta1, beta2, eps)"))
        return NULL;
    for (int i = 0; i < 5; i++) {
        n[i] = PyFloat_AsDouble(args[4 + i]);
        if (PyErr_Occurred())
            return NULL;
    }
    Py_ssize_t count = -1;
    for (int i = 0; i < 4; i++) {
        int flags = i == 1 ? READ : WRITE;
        vectors[i] = numbers(&arrays, args[i], flags, FLOAT32, count, names[i]);
        if (!vectors[i])
            return done(&arrays, NULL);
        count = size_of_last(&arrays);
    }
    double step = n[1] / (1 - pow(n[2], n[0])), scale = sqrt(1 - pow(n[3], n[0]));
    adam(vectors[0], vectors[1], vectors[2], vectors[3], count, n + 2, (float)scale, (float)n[4],
         (float)step);
    return done(&arrays, NULL);
}

static PyObject *learning_move(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t given)
{
    Arrays arrays = {0};
    if (!counts(given, 3, "move(from, to, by)"))
        return NULL;
    double by = PyFloat_AsDouble(args[2]);
    if (PyErr_Occurred())
        return NULL;
    float *from = numbers(&arrays, args[0], WRITE, FLOAT32, -1, "from");
    Py_ssize_t count = from ? size_of_last(&arrays) : 0;
    const float *to = from ? numbers(&arrays, args[1], READ, FLOAT32, count, "to") : NULL;
    if (to)
        move(from, to, count, (float)by);
    return done(&arrays, NULL);
}

/* -------------------------------------------------------------------------------------- checking */

TARGET static Py_ssize_t floats_beyond(const float *x, Py_ssize_t count, float largest)
{
    Py_ssize_t beyond = 0;
    for (Py_ssize_t i = 0; i < count; i++)
        beyond += !(fabsf(x[i]) <= largest);
    return beyond;
}

TARGET static Py_ssize_t doubles_beyond(const double *x, Py_ssize_t count, double largest)
{
    Py_ssize_t beyond = 0;
    for (Py_ssize_t i = 0; i < count; i++)
        beyond += !(fabs(x[i]) <= largest);
    return beyond;
}

static PyObject *learning_within(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t given)
{
    Arrays arrays = {0};
    if (!counts(given, 2, "within(values, largest)"))
        return NULL;
    double largest = PyFloat_AsDouble(args[1]);
    if (PyErr_Occurred())
        return NULL;
    const Py_buffer *x = rows_of_any(&arrays, args[0], READ);
    if (!x)
        return NULL;
    Py_ssize_t beyond = 0;
    if (!strcmp(x->format, FLOAT32))
        beyond = floats_beyond(x->buf, size_of_last(&arrays), (float)fmin(largest, FLT_MAX));
    else if (!strcmp(x->format, FLOAT64))
        beyond = doubles_beyond(x->buf, size_of_last(&arrays), largest);
    else
        PyErr_Format(PyExc_ValueError, "values: expected floats, got format %s", x->format);
    return done(&arrays, PyErr_Occurred() ? NULL : PyBool_FromLong(!beyond));
}

/* ----------------------------------------------------------------------------------- the module */

#define METHOD(name, doc) \
    {#name, (PyCFunction)(void (*)(void))learning_##name, METH_FASTCALL, doc}

static PyMethodDef methods[] = {
    METHOD(choose, "choose(uniforms, size, rows): write different numbers below size.\n\n"
                   "uniforms are random numbers in [0, 1), float64, one for each."),
    METHOD(take, "take(column, rows, out): copy rows of an array [size, ...]."),
    METHOD(within, "within(values, largest): return whether none is NaN, or larger in magnitude."),
    METHOD(q_targets, "q_targets(rewards, dones, next_q, chooser, discount, targets)"),
    METHOD(q_loss, "q_loss(q, actions, targets, huber, gradient): return the loss."),
    METHOD(adam, "adam(weights, gradient, mean, square, steps, lr, beta1, beta2, eps)"),
    METHOD(move, "move(from, to, by): move a vector by a fraction of the way to another."),
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_learning",
    .m_doc = "What learning takes besides the passes of networks.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__learning(void)
{
    return processor_serves() ? PyModule_Create(&module) : NULL;
}
