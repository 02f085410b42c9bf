/* MD5 and one or two SHA-256 of a body in one pass: s4/s3/hashing.py says what for, and does it with hashlib elsewhere.
 *
 * MD5 is one long chain of additions, each waiting for the one before, so that most of a core idles; the SHA
 * instructions of x86 fit between. All bytes go into MD5 and the first SHA-256; the second one is of the chunk that is
 * signed, and begins anew with each. While both are equally far into their blocks one pass feeds all three.
 *
 * For editors: `fill` and `chunk_fill` are how much of a block waits, below 64 between calls. The interpreter's lock is
 * let go of for long updates; `busy` then refuses a second thread, which would tear the state.
 * Sources: RFC 1321 (MD5), FIPS 180-4 (SHA-256), Intel SDM volume 2 (SHA256RNDS2, SHA256MSG1, SHA256MSG2). */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>
#include <cpuid.h> /* of x86: elsewhere this is not built, and hashlib does it */
#include <immintrin.h>

#define BLOCK 64
#define LONG 4096 /* bytes from which the lock is let go of */
#define TARGET __attribute__((target("sha,sse4.1,ssse3")))
#define INLINE static inline __attribute__((always_inline)) TARGET

static const uint32_t MD5_START[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
static const uint32_t SHA_START[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static const uint32_t MD5_K[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};
static const uint32_t SHA_K[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

/* One step of MD5. The second round's function is a sum of two parts that share no bit, so that only one of them waits. */
#define ROTATE(x, n) (((x) << (n)) | ((x) >> (32 - (n))))
#define F(b, c, d) ((d) ^ ((b) & ((c) ^ (d))))
#define G(b, c, d) ((~(d) & (c)) + ((d) & (b)))
#define H(b, c, d) ((b) ^ ((c) ^ (d)))
#define I(b, c, d) ((c) ^ ((b) | ~(d)))
#define STEP(f, a, b, c, d, i, at, by) \
    a += w[at] + MD5_K[i];             \
    a += f(b, c, d);                   \
    a = ROTATE(a, by) + b;
/* Four steps, from number i; the words they take are `from`, `from`+`by`, … */
#define FOUR(f, i, from, by, s, t, u, v)                \
    STEP(f, a, b, c, d, i, (from) & 15, s)              \
    STEP(f, d, a, b, c, i + 1, (from + by) & 15, t)     \
    STEP(f, c, d, a, b, i + 2, (from + 2 * by) & 15, u) \
    STEP(f, b, c, d, a, i + 3, (from + 3 * by) & 15, v)

/* The state of a SHA-256 as its instructions want it: the words a, b, e, f and c, d, g, h. */
typedef struct { __m128i abef, cdgh; } Sha;

INLINE Sha sha_load(const uint32_t *state) {
    __m128i abcd = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xB1);
    __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1B);
    Sha made = {_mm_alignr_epi8(abcd, efgh, 8), _mm_blend_epi16(efgh, abcd, 0xF0)};
    return made;
}

INLINE void sha_store(uint32_t *state, Sha sha) {
    __m128i feba = _mm_shuffle_epi32(sha.abef, 0x1B), dchg = _mm_shuffle_epi32(sha.cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

INLINE void sha_four(Sha *sha, __m128i words) {
    sha->cdgh = _mm_sha256rnds2_epu32(sha->cdgh, sha->abef, words);
    sha->abef = _mm_sha256rnds2_epu32(sha->abef, sha->cdgh, _mm_shuffle_epi32(words, 0x0E));
}

/* The next four words of the schedule, in place of the oldest four. */
INLINE __m128i sha_next(__m128i oldest, __m128i older, __m128i newer, __m128i newest) {
    oldest = _mm_add_epi32(_mm_sha256msg1_epu32(oldest, older), _mm_alignr_epi8(newest, newer, 4));
    return _mm_sha256msg2_epu32(oldest, newest);
}

/* Whole blocks into what is asked for; each flag is known where this is inlined. */
INLINE void blocks(uint32_t *md5, uint32_t *first, uint32_t *second, const uint8_t *data, size_t count,
                   const int with_md5, const int with_first, const int with_second) {
    const __m128i swapped = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    uint32_t a = md5[0], b = md5[1], c = md5[2], d = md5[3];
    Sha one = sha_load(first), two = sha_load(second);
    for (; count; count--, data += BLOCK) {
        uint32_t w[16], a0 = a, b0 = b, c0 = c, d0 = d;
        const Sha one0 = one, two0 = two;
        memcpy(w, data, BLOCK);
        __m128i m[4];
        for (int i = 0; i < 4; i++)
            m[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * i)), swapped);
#define ROUNDS(i)                                                                                         \
    if (i >= 4 && (with_first || with_second))                                                            \
        m[(i) & 3] = sha_next(m[(i) & 3], m[(i + 1) & 3], m[(i + 2) & 3], m[(i + 3) & 3]);                \
    const __m128i words##i = _mm_add_epi32(m[(i) & 3], _mm_load_si128((const __m128i *)(SHA_K + 4 * i))); \
    if (with_first) sha_four(&one, words##i);                                                             \
    if (with_second) sha_four(&two, words##i);
#define ROUND(f, i, from, by, s, t, u, v) \
    ROUNDS(i)                             \
    if (with_md5) { FOUR(f, 4 * i, from, by, s, t, u, v) }
        ROUND(F, 0, 0, 1, 7, 12, 17, 22)
        ROUND(F, 1, 4, 1, 7, 12, 17, 22)
        ROUND(F, 2, 8, 1, 7, 12, 17, 22)
        ROUND(F, 3, 12, 1, 7, 12, 17, 22)
        ROUND(G, 4, 1, 5, 5, 9, 14, 20)
        ROUND(G, 5, 5, 5, 5, 9, 14, 20)
        ROUND(G, 6, 9, 5, 5, 9, 14, 20)
        ROUND(G, 7, 13, 5, 5, 9, 14, 20)
        ROUND(H, 8, 5, 3, 4, 11, 16, 23)
        ROUND(H, 9, 1, 3, 4, 11, 16, 23)
        ROUND(H, 10, 13, 3, 4, 11, 16, 23)
        ROUND(H, 11, 9, 3, 4, 11, 16, 23)
        ROUND(I, 12, 0, 7, 6, 10, 15, 21)
        ROUND(I, 13, 12, 7, 6, 10, 15, 21)
        ROUND(I, 14, 8, 7, 6, 10, 15, 21)
        ROUND(I, 15, 4, 7, 6, 10, 15, 21)
        a += a0, b += b0, c += c0, d += d0;
        one.abef = _mm_add_epi32(one.abef, one0.abef), one.cdgh = _mm_add_epi32(one.cdgh, one0.cdgh);
        two.abef = _mm_add_epi32(two.abef, two0.abef), two.cdgh = _mm_add_epi32(two.cdgh, two0.cdgh);
    }
    if (with_md5) md5[0] = a, md5[1] = b, md5[2] = c, md5[3] = d;
    if (with_first) sha_store(first, one);
    if (with_second) sha_store(second, two);
}

typedef struct {
    PyObject_HEAD
    uint32_t md5[4], content[8], chunk[8];
    uint8_t waiting[BLOCK], chunk_waiting[BLOCK];
    size_t fill, chunk_fill, total, chunk_total;
    int with_content, with_chunk, busy;
} Fused;

/* 0, 1: the body's; 2: the chunk's; 3: all of them. */
TARGET static void absorb(Fused *f, int which, const uint8_t *data, size_t count) {
    if (which == 3 && f->with_content) blocks(f->md5, f->content, f->chunk, data, count, 1, 1, 1);
    else if (which == 3) blocks(f->md5, f->content, f->chunk, data, count, 1, 0, 1);
    else if (which == 2) blocks(f->md5, f->content, f->chunk, data, count, 0, 0, 1);
    else if (f->with_content) blocks(f->md5, f->content, f->chunk, data, count, 1, 1, 0);
    else blocks(f->md5, f->content, f->chunk, data, count, 1, 0, 0);
}

static void feed(Fused *f, int which, uint8_t *waiting, size_t *fill, const uint8_t *data, size_t size) {
    if (*fill) {
        size_t more = BLOCK - *fill < size ? BLOCK - *fill : size;
        memcpy(waiting + *fill, data, more);
        *fill += more, data += more, size -= more;
        if (*fill < BLOCK) return;
        absorb(f, which, waiting, 1);
        *fill = 0;
    }
    absorb(f, which, data, size / BLOCK);
    *fill = size % BLOCK;
    memcpy(waiting, data + (size - *fill), *fill);
}

static void add(Fused *f, const uint8_t *data, size_t size) {
    size_t apart = size; /* what goes into each digest by itself: until both are at the beginning of a block */
    if (f->with_chunk && f->fill == f->chunk_fill && (BLOCK - f->fill) % BLOCK <= size) apart = (BLOCK - f->fill) % BLOCK;
    f->total += size, f->chunk_total += size;
    feed(f, 1, f->waiting, &f->fill, data, apart);
    if (f->with_chunk) feed(f, 2, f->chunk_waiting, &f->chunk_fill, data, apart);
    if (apart == size) return; /* without a chunk always */
    feed(f, 3, f->waiting, &f->fill, data + apart, size - apart);
    memcpy(f->chunk_waiting, f->waiting, f->chunk_fill = f->fill);
}

static int is_busy(Fused *f) {
    if (f->busy) PyErr_SetString(PyExc_RuntimeError, "another thread is hashing this body");
    return f->busy;
}

/* The last block or two of one digest, on a copy, so that the body may go on. */
static PyObject *ended(Fused *self, int which, int of_md5) {
    Fused f = *self;
    if (is_busy(self)) return NULL;
    uint8_t *waiting = which == 2 ? f.chunk_waiting : f.waiting, last[2 * BLOCK] = {0};
    size_t fill = which == 2 ? f.chunk_fill : f.fill, count = fill < BLOCK - 8 ? 1 : 2;
    uint64_t bits = 8 * (which == 2 ? f.chunk_total : f.total);
    memcpy(last, waiting, fill), last[fill] = 0x80;
    for (int i = 0; i < 8; i++) last[count * BLOCK - 8 + i] = (uint8_t)(bits >> (of_md5 ? 8 * i : 56 - 8 * i));
    absorb(&f, which, last, count);
    const uint32_t *state = which == 2 ? f.chunk : of_md5 ? f.md5 : f.content;
    uint8_t out[32];
    for (int i = 0; i < (of_md5 ? 16 : 32); i++) out[i] = (uint8_t)(state[i / 4] >> (of_md5 ? 8 * (i % 4) : 24 - 8 * (i % 4)));
    return PyBytes_FromStringAndSize((const char *)out, of_md5 ? 16 : 32);
}

static PyObject *fused_update(PyObject *self, PyObject *data) {
    Fused *f = (Fused *)self;
    Py_buffer view;
    if (is_busy(f)) return NULL;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return NULL;
    f->busy = 1;
    PyThreadState *let_go = view.len >= LONG ? PyEval_SaveThread() : NULL;
    add(f, view.buf, (size_t)view.len);
    if (let_go) PyEval_RestoreThread(let_go);
    f->busy = 0;
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

static PyObject *fused_chunk(PyObject *self, PyObject *unused) {
    Fused *f = (Fused *)self;
    memcpy(f->chunk, SHA_START, sizeof SHA_START);
    f->chunk_fill = 0, f->chunk_total = 0, f->with_chunk = 1;
    Py_RETURN_NONE;
}

static PyObject *fused_md5(PyObject *self, PyObject *unused) { return ended((Fused *)self, 1, 1); }
static PyObject *fused_sha256(PyObject *self, PyObject *unused) { return ended((Fused *)self, 1, 0); }
static PyObject *fused_chunk_sha256(PyObject *self, PyObject *unused) { return ended((Fused *)self, 2, 0); }

static int fused_init(PyObject *self, PyObject *arguments, PyObject *keywords) {
    Fused *f = (Fused *)self;
    if (!PyArg_ParseTuple(arguments, "p", &f->with_content)) return -1;
    memcpy(f->md5, MD5_START, sizeof MD5_START);
    memcpy(f->content, SHA_START, sizeof SHA_START);
    return 0;
}

static PyMethodDef methods[] = {{"update", fused_update, METH_O, NULL},
                                {"chunk", fused_chunk, METH_NOARGS, NULL},
                                {"md5", fused_md5, METH_NOARGS, NULL},
                                {"sha256", fused_sha256, METH_NOARGS, NULL},
                                {"chunk_sha256", fused_chunk_sha256, METH_NOARGS, NULL},
                                {NULL, NULL, 0, NULL}};
static PyType_Slot slots[] = {{Py_tp_init, fused_init}, {Py_tp_methods, methods}, {0, NULL}};
static PyType_Spec spec = {"s4.s3._fused.Fused", sizeof(Fused), 0, Py_TPFLAGS_DEFAULT, slots};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "s4.s3._fused", NULL, 0, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__fused(void) {
    unsigned a, b = 0, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b >> 29 & 1)) /* SHA; what has it has SSSE3 and SSE4.1 */
        return PyErr_SetString(PyExc_ImportError, "this processor has no SHA instructions"), NULL;
    PyObject *made = PyModule_Create(&module), *type = PyType_FromSpec(&spec);
    if (made && type && PyModule_AddObjectRef(made, "Fused", type) == 0) return made;
    return NULL;
}
