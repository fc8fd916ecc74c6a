/* Forward and backward pass of small MLPs, a whole pass in one call.
 *
 * mlp_kernel.py lays the parameters of a network into one flat vector of float32: weight [out, in]
 * and bias [out] of each layer, one after the other.  A Pass holds such a vector (and one of the
 * same length for the gradients) and computes on it in place.  At these sizes the time goes into
 * what surrounds the arithmetic, so that one call does all layers, without an allocation.
 *
 * All products are one routine: C = A B, where A is read by strides and B is packed into panels of
 * two vectors' columns, padded by zeros.  Blocks of 6 rows and one panel stay in registers.
 */
#include "_arrays.h"

#if defined(__x86_64__)
#define HALF 8
#else
#define HALF 4
#endif
#define PANEL (2 * HALF)
#define BLOCK 6
#define THIN 4 /* batches of so few rows are not worth packing the weights for */
#define SLICE 256 /* rows that a pass of which nothing is kept does at once */
#define WIDEST (1 << 24)

typedef float vector __attribute__((vector_size(4 * HALF), aligned(4), may_alias));
typedef int mask __attribute__((vector_size(4 * HALF), aligned(4), may_alias));

enum activation { LINEAR, RELU, TANH, ACTIVATIONS };

typedef struct {
    const float *data;
    Py_ssize_t row, column; /* strides */
} Strided;

/* What is done to a block of results before it is stored. */
typedef struct {
    const float *bias;         /* [columns], added to each row */
    enum activation activation; /* then applied */
    const float *open;         /* or: results are kept where this [rows, columns] is above 0 */
} Finish;

/* ---------------------------------------------------------------------------------- products */

/* Lay B [depth, columns] into panels [depth, PANEL], one after the other. */
INLINE void pack(Strided b, Py_ssize_t depth, Py_ssize_t columns, float *packed)
{
    for (Py_ssize_t j = 0; j < columns; j += PANEL, packed += depth * PANEL) {
        Py_ssize_t width = columns - j < PANEL ? columns - j : PANEL;
        if (width < PANEL)
            memset(packed, 0, depth * PANEL * sizeof(float));
        if (b.column == 1)
            for (Py_ssize_t k = 0; k < depth; k++)
                memcpy(packed + k * PANEL, b.data + k * b.row + j, width * sizeof(float));
        else
            for (Py_ssize_t i = 0; i < width; i++) {
                const float *column = b.data + (j + i) * b.column;
                for (Py_ssize_t k = 0; k < depth; k++)
                    packed[k * PANEL + i] = column[k * b.row];
            }
    }
}

INLINE float activate(float z, enum activation activation)
{
    if (activation == RELU)
        return z < 0 ? 0 : z; /* NaN stays NaN */
    return activation == TANH ? tanhf(z) : z;
}

/* Store one row of a block, of `width` columns from column `j` on. */
INLINE void store(const vector *sums, float *c, Py_ssize_t j, Py_ssize_t width, Finish finish,
                  Py_ssize_t offset)
{
    float row[PANEL] = {0};
    memcpy(row, sums, sizeof row);
    if (finish.bias)
        for (Py_ssize_t i = 0; i < width; i++)
            row[i] += finish.bias[j + i];
    if (finish.open)
        for (Py_ssize_t i = 0; i < width; i++)
            row[i] = finish.open[offset + i] > 0 ? row[i] : 0;
    if (finish.activation != LINEAR)
        for (Py_ssize_t i = 0; i < width; i++)
            row[i] = activate(row[i], finish.activation);
    memcpy(c + offset, row, width * sizeof(float));
}

/* The same where all columns of the panel are there, in registers. */
INLINE void store_whole(const vector *sums, float *c, Py_ssize_t j, Finish finish, Py_ssize_t offset)
{
    for (int half = 0; half < 2; half++) {
        Py_ssize_t at = half * HALF;
        vector x = sums[half];
        if (finish.bias)
            x += *(const vector *)(finish.bias + j + at);
        if (finish.open)
            x = (vector)((mask)x & (*(const vector *)(finish.open + offset + at) > 0));
        if (finish.activation == RELU)
            x = (vector)((mask)x & ~(x < 0));
        *(vector *)(c + offset + at) = x;
    }
}

/* Compute `rows` rows and one panel of C. */
INLINE void block(int rows, Strided a, const float *packed, Py_ssize_t depth, float *c,
                  Py_ssize_t i, Py_ssize_t j, Py_ssize_t columns, Finish finish)
{
    vector sums[BLOCK][2] = {0};
    const float *first = a.data + i * a.row;
    for (Py_ssize_t k = 0; k < depth; k++) {
        vector low = *(const vector *)(packed + k * PANEL);
        vector high = *(const vector *)(packed + k * PANEL + HALF);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            float factor = first[r * a.row + k * a.column];
            sums[r][0] += factor * low;
            sums[r][1] += factor * high;
        }
    }
    Py_ssize_t width = columns - j < PANEL ? columns - j : PANEL;
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        Py_ssize_t offset = (i + r) * columns + j;
        if (width == PANEL && finish.activation != TANH)
            store_whole(sums[r], c, j, finish, offset);
        else
            store(sums[r], c, j, width, finish, offset);
    }
}

/* C [rows, columns] = A [rows, depth] B [depth, columns]; C is contiguous. */
INLINE void product(Strided a, Strided b, Py_ssize_t rows, Py_ssize_t depth, Py_ssize_t columns,
                    float *c, Finish finish, float *packed)
{
    pack(b, depth, columns, packed);
    for (Py_ssize_t j = 0; j < columns; j += PANEL, packed += depth * PANEL) {
        Py_ssize_t i = 0;
        for (; i + BLOCK <= rows; i += BLOCK)
            block(BLOCK, a, packed, depth, c, i, j, columns, finish);
        switch (rows - i) {
        case 5: block(5, a, packed, depth, c, i, j, columns, finish); break;
        case 4: block(4, a, packed, depth, c, i, j, columns, finish); break;
        case 3: block(3, a, packed, depth, c, i, j, columns, finish); break;
        case 2: block(2, a, packed, depth, c, i, j, columns, finish); break;
        case 1: block(1, a, packed, depth, c, i, j, columns, finish); break;
        }
    }
}

/* The outputs of one layer for few rows, each a scalar product. */
INLINE void thin_layer(const float *x, const float *weight, Py_ssize_t rows, Py_ssize_t depth,
                       Py_ssize_t columns, float *c, Finish finish)
{
    for (Py_ssize_t j = 0; j < columns; j++, weight += depth)
        for (Py_ssize_t i = 0; i < rows; i++) {
            const float *row = x + i * depth;
            vector sums = {0};
            Py_ssize_t k = 0;
            for (; k + HALF <= depth; k += HALF)
                sums += *(const vector *)(row + k) * *(const vector *)(weight + k);
            float sum = finish.bias[j];
            for (; k < depth; k++)
                sum += row[k] * weight[k];
            for (int lane = 0; lane < HALF; lane++)
                sum += sums[lane];
            c[i * columns + j] = activate(sum, finish.activation);
        }
}

/* ------------------------------------------------------------------------------------- passes */

/* An MLP; its Python type has the methods at the end of this file. */
typedef struct {
    PyObject_HEAD
    int depth;              /* layers */
    Py_ssize_t *sizes;      /* widths, of the input first, [depth + 1] */
    enum activation *after; /* activation of each layer, [depth] */
    Py_buffer parameters, gradients, inputs; /* inputs: of the last pass that was kept */
    Py_ssize_t rows;        /* of that pass */
    float *kept;            /* outputs of all its layers, one after the other */
    Py_ssize_t kept_room, room; /* rows that there is memory for: above, below */
    float *passing;         /* outputs of two layers of other passes, and of two gradients */
    float *packed;
} Pass;

static Py_ssize_t widest(const Pass *self)
{
    Py_ssize_t most = 0;
    for (int i = 0; i <= self->depth; i++)
        most = self->sizes[i] > most ? self->sizes[i] : most;
    return most;
}

INLINE void forward_pass(Pass *self, const float *x, Py_ssize_t rows, float *out, int keep)
{
    const float *parameters = self->parameters.buf;
    float *kept = self->kept, *spare[2] = {self->passing, self->passing + rows * widest(self)};
    for (int i = 0; i < self->depth; i++) {
        Py_ssize_t depth = self->sizes[i], columns = self->sizes[i + 1];
        Finish finish = {parameters + columns * depth, self->after[i], NULL};
        float *y = keep ? kept : i + 1 < self->depth ? spare[i % 2] : out;
        Strided a = {x, depth, 1}, transposed = {parameters, 1, depth};
        if (rows <= THIN)
            thin_layer(x, parameters, rows, depth, columns, y, finish);
        else
            product(a, transposed, rows, depth, columns, y, finish, self->packed);
        parameters += columns * (depth + 1);
        kept += rows * columns;
        x = y;
    }
    if (keep)
        memcpy(out, x, rows * self->sizes[self->depth] * sizeof(float));
}

/* The gradient in front of the output's activation; in front of the others it is taken by `open`. */
INLINE void through_output(enum activation after, const float *y, const float *above,
                           Py_ssize_t count, float *below)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        float slope = after == TANH ? 1 - y[i] * y[i] : after == RELU ? y[i] > 0 : 1;
        below[i] = above[i] * slope;
    }
}

/* Write the parameters' gradients, or those of the first `columns` inputs where `out` is given. */
INLINE void backward_pass(Pass *self, const float *above, float *out, Py_ssize_t columns)
{
    Py_ssize_t rows = self->rows, most = rows * widest(self), last = self->sizes[self->depth];
    const float *parameters = (const float *)self->parameters.buf + self->parameters.len / 4;
    float *gradients = out ? NULL : (float *)self->gradients.buf + self->gradients.len / 4;
    float *spare[2] = {self->passing, self->passing + most};
    const float *y = self->kept, *grad = spare[0];
    for (int i = 1; i < self->depth; i++)
        y += rows * self->sizes[i];
    through_output(self->after[self->depth - 1], y, above, rows * last, spare[0]);
    for (int i = self->depth - 1; i >= 0; i--) {
        Py_ssize_t in = self->sizes[i], width = self->sizes[i + 1];
        const float *x = i ? (y -= rows * in) : self->inputs.buf;
        parameters -= width * (in + 1);
        Finish plain = {NULL, LINEAR, NULL};
        if (!out) {
            gradients -= width * (in + 1);
            Strided by_unit = {grad, 1, width}, inputs = {x, in, 1};
            product(by_unit, inputs, width, rows, in, gradients, plain, self->packed);
            float *bias = gradients + width * in;
            memset(bias, 0, width * sizeof(float));
            for (Py_ssize_t r = 0; r < rows; r++)
                for (Py_ssize_t j = 0; j < width; j++)
                    bias[j] += grad[r * width + j];
        }
        if (i == 0 && !out)
            return;
        float *below = i ? spare[(self->depth - i) % 2] : out;
        Finish through = {NULL, LINEAR, i && self->after[i - 1] == RELU ? x : NULL};
        Strided a = {grad, width, 1}, weight = {parameters, in, 1};
        product(a, weight, rows, width, i ? in : columns, below, through, self->packed);
        grad = below;
    }
}

TARGET static void run_forward(Pass *self, const float *x, Py_ssize_t rows, float *out, int keep)
{
    forward_pass(self, x, rows, out, keep);
}

TARGET static void run_backward(Pass *self, const float *above, float *out, Py_ssize_t columns)
{
    backward_pass(self, above, out, columns);
}

/* ---------------------------------------------------------------------------- the Python type */

/* Have memory for so many rows, or one; what was kept stays, unless there is none for more. */
static int reserve(Pass *self, Py_ssize_t rows, int keep)
{
    rows += rows == 0;
    Py_ssize_t total = 0, most = widest(self), deepest = rows > most ? rows : most;
    for (int i = 1; i <= self->depth; i++)
        total += self->sizes[i];
    if (keep && rows > self->kept_room) {
        free(self->kept);
        self->kept = malloc(rows * total * sizeof(float));
        self->rows = 0;
        self->kept_room = self->kept ? rows : 0;
    }
    if (rows > self->room) {
        free(self->passing);
        free(self->packed);
        self->passing = malloc(2 * rows * most * sizeof(float));
        self->packed = malloc(deepest * (most + PANEL) * sizeof(float));
        self->room = self->passing && self->packed ? rows : 0;
    }
    if (rows <= self->room && (!keep || rows <= self->kept_room))
        return 0;
    self->rows = 0;
    PyErr_NoMemory();
    return -1;
}

static int pass_init(Pass *self, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *sizes, *after, *parameters, *gradients;
    if (self->sizes || !PyArg_ParseTuple(args, "O!O!OO", &PyTuple_Type, &sizes, &PyTuple_Type,
                                         &after, &parameters, &gradients))
        return PyErr_Occurred() ? -1 : (PyErr_SetString(PyExc_RuntimeError, "made already"), -1);
    Py_ssize_t depth = PyTuple_GET_SIZE(after), count = 0;
    if (depth < 1 || PyTuple_GET_SIZE(sizes) != depth + 1) {
        PyErr_SetString(PyExc_ValueError, "sizes: expected one more than activations");
        return -1;
    }
    self->sizes = calloc(depth + 1, sizeof *self->sizes);
    self->after = calloc(depth, sizeof *self->after);
    if (!self->sizes || !self->after)
        return PyErr_NoMemory(), -1;
    for (Py_ssize_t i = 0; i <= depth; i++) {
        self->sizes[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(sizes, i));
        long code = i < depth ? PyLong_AsLong(PyTuple_GET_ITEM(after, i)) : LINEAR;
        if (PyErr_Occurred())
            return -1;
        if (self->sizes[i] < 1 || self->sizes[i] > WIDEST || code < 0 || code >= ACTIVATIONS ||
            (code == TANH && i + 1 < depth)) {
            PyErr_SetString(PyExc_ValueError, "a size or an activation that can't be");
            return -1;
        }
        if (i < depth)
            self->after[i] = (enum activation)code;
        if (i)
            count += self->sizes[i] * (self->sizes[i - 1] + 1);
    }
    if (as_vector(parameters, &self->parameters, PyBUF_SIMPLE, count, FLOAT32, "parameters"))
        return -1;
    if (gradients != Py_None &&
        as_vector(gradients, &self->gradients, PyBUF_WRITABLE, count, FLOAT32, "gradients"))
        return -1;
    self->depth = (int)depth;
    return 0;
}

static void pass_dealloc(Pass *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyBuffer_Release(&self->parameters);
    PyBuffer_Release(&self->gradients);
    PyBuffer_Release(&self->inputs);
    free(self->sizes);
    free(self->after);
    free(self->kept);
    free(self->passing);
    free(self->packed);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *pass_forward(Pass *self, PyObject *const *args, Py_ssize_t count)
{
    Py_buffer x, out, old;
    if (count != 3 || !self->depth)
        return PyErr_SetString(PyExc_TypeError, "forward(x, out, keep) of a Pass that was made"), NULL;
    int keep = PyObject_IsTrue(args[2]);
    Py_ssize_t in = self->sizes[0], width = self->sizes[self->depth];
    if (keep < 0 || as_floats(args[0], &x, PyBUF_SIMPLE, -1, in, "x"))
        return NULL;
    Py_ssize_t rows = x.shape[0], slice = keep || rows < SLICE ? rows : SLICE;
    if (as_floats(args[1], &out, PyBUF_WRITABLE, rows, width, "out")) {
        PyBuffer_Release(&x);
        return NULL;
    }
    int failed = reserve(self, slice, keep);
    for (Py_ssize_t i = 0; i < rows && !failed; i += slice)
        run_forward(self, (const float *)x.buf + i * in, rows - i < slice ? rows - i : slice,
                    (float *)out.buf + i * width, keep);
    PyBuffer_Release(&out);
    if (keep && !failed) { /* what is released may run code of anybody, so that it goes last */
        old = self->inputs;
        self->inputs = x;
        self->rows = rows;
        x = old;
    }
    PyBuffer_Release(&x);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *pass_backward(Pass *self, PyObject *const *args, Py_ssize_t count)
{
    Py_buffer above;
    if (count != 1 || !self->gradients.buf)
        return PyErr_SetString(PyExc_TypeError, "backward(grad) of a Pass with gradients"), NULL;
    if (!self->kept_room || !self->room)
        return PyErr_SetString(PyExc_ValueError, "no pass was kept"), NULL;
    if (as_floats(args[0], &above, PyBUF_SIMPLE, self->rows, self->sizes[self->depth], "grad"))
        return NULL;
    run_backward(self, above.buf, NULL, 0);
    PyBuffer_Release(&above);
    Py_RETURN_NONE;
}

static PyObject *pass_input_gradient(Pass *self, PyObject *const *args, Py_ssize_t count)
{
    Py_buffer above, out;
    if (count != 2 || !self->depth)
        return PyErr_SetString(PyExc_TypeError, "input_gradient(grad, out)"), NULL;
    if (!self->kept_room || !self->room)
        return PyErr_SetString(PyExc_ValueError, "no pass was kept"), NULL;
    if (as_floats(args[0], &above, PyBUF_SIMPLE, self->rows, self->sizes[self->depth], "grad"))
        return NULL;
    if (as_floats(args[1], &out, PyBUF_WRITABLE, self->rows, -1, "out")) {
        PyBuffer_Release(&above);
        return NULL;
    }
    int fits = out.shape[1] >= 1 && out.shape[1] <= self->sizes[0];
    if (fits)
        run_backward(self, above.buf, out.buf, out.shape[1]);
    PyBuffer_Release(&above);
    PyBuffer_Release(&out);
    if (!fits)
        return PyErr_SetString(PyExc_ValueError, "out: expected the first inputs of each row"), NULL;
    Py_RETURN_NONE;
}

static PyMethodDef pass_methods[] = {
    {"forward", (PyCFunction)(void (*)(void))pass_forward, METH_FASTCALL,
     "forward(x, out, keep): write the outputs for x; keep what a backward pass needs.\n\n"
     "x and out must not overlap."},
    {"backward", (PyCFunction)(void (*)(void))pass_backward, METH_FASTCALL,
     "backward(grad): write the gradients, from that of the outputs of the pass that was kept."},
    {"input_gradient", (PyCFunction)(void (*)(void))pass_input_gradient, METH_FASTCALL,
     "input_gradient(grad, out): write the gradient of the first inputs."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pass_slots[] = {
    {Py_tp_doc, "Pass(sizes, activations, parameters, gradients): an MLP on flat vectors."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, pass_init},
    {Py_tp_dealloc, pass_dealloc},
    {Py_tp_methods, pass_methods},
    {0, NULL},
};

static PyType_Spec pass_spec = {
    .name = "agilerl._mlp.Pass",
    .basicsize = sizeof(Pass),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = pass_slots,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_mlp",
    .m_doc = "Forward and backward pass of small MLPs.",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit__mlp(void)
{
    if (!processor_serves())
        return NULL;
    PyObject *made = PyModule_Create(&module), *type = PyType_FromSpec(&pass_spec);
    if (!made || !type || PyModule_AddObjectRef(made, "Pass", type)) {
        Py_XDECREF(made);
        made = NULL;
    }
    Py_XDECREF(type);
    return made;
}
