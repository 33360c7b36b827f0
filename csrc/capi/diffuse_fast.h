/* diffuse_fast without Python: draws samples from a model that `diffuse-fast compile` wrote (docs/compiled.md).

     df_model* model = NULL;
     if (df_open("digits.dfp", &model) != DF_OK) fail(df_last_error());
     df_request request = {.size = sizeof request, .count = 4, .seed = 7};
     float* x = malloc(4 * df_describe(model)->elements * sizeof *x);
     if (df_sample(model, &request, x) != DF_OK) fail(df_last_error());
     df_close(model);

   A sample is a function of the model, its seed and its index: its bits are the same in any batch, on any number of threads and any
   instruction set, and those of df.sample in Python.

   Any thread may call any function. Only df_close must not run while the model is in use. No function throws or keeps a pointer
   that it was given. Texts of a model are UTF-8. */

#ifndef DIFFUSE_FAST_H
#define DIFFUSE_FAST_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define DF_API __attribute__((visibility("default")))
#else
#define DF_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum df_status {
  DF_OK = 0,
  DF_BAD_ARGUMENT = 1, /* an argument is wrong; the message names it */
  DF_CANNOT_READ = 2,  /* the file is missing or cannot be read */
  DF_BAD_FILE = 3,     /* it is no compiled model, is damaged, or is of another version */
  DF_UNAVAILABLE = 4,  /* DIFFUSE_FAST_KERNEL names an instruction set that this library or machine does not have */
  DF_NO_MEMORY = 5,
  DF_NOT_FINITE = 6, /* the network returned NaN or Inf */
  DF_STOPPED = 7,    /* df_stop_request ended it */
  DF_FAILED = 8      /* the network failed, or the library has a defect; the message says more */
} df_status;

/* ---- about the library ------------------------------------------------------------------------------------------------------ */

/* The version of the library, as "0.1.0". */
DF_API const char* df_version(void);

/* The instruction set that it uses: "avx512", "avx2", "neon" or "scalar". The best that the machine has, or the one that the
   environment variable DIFFUSE_FAST_KERNEL names; NULL if that cannot run. */
DF_API const char* df_instruction_set(void);

/* What the last call on this thread that failed has to say; "" if none has failed. Valid until the next call on this thread. */
DF_API const char* df_last_error(void);

/* ---- models ----------------------------------------------------------------------------------------------------------------- */

typedef struct df_model df_model;

/* Reads, checks and loads a compiled model. On failure *model is NULL. A file that is damaged or made to do harm is refused without
   harm, but a valid one may ask for as much memory and time as its author wants. */
DF_API df_status df_open(const char* path, df_model** model);

/* The same from the bytes of a file, which are not needed afterwards. */
DF_API df_status df_open_memory(const void* bytes, size_t size, df_model** model);

/* Frees a model; NULL is ignored. */
DF_API void df_close(df_model* model);

/* What a model draws. The model owns it. Later versions of the library may add members at the end. */
typedef struct df_info {
  const char* name;
  const char* about;    /* JSON: licence, solver, options, hashes */
  const int64_t* shape; /* of one sample, `rank` sizes */
  int64_t elements;     /* of one sample: their product */
  int32_t rank;
  int32_t inputs; /* conditioning inputs */
  int32_t steps;
  int32_t has_value_range;      /* samples of images are in [value_low, value_high]; the caller converts and clips them */
  double value_low, value_high; /* 0 without a range */
  double guidance_scale;        /* which the plan contains; with another than 1 each step takes two evaluations */
} df_info;

DF_API const df_info* df_describe(const df_model* model);

typedef enum df_type { DF_FLOAT32 = 0, DF_INT64 = 1, DF_INT32 = 2, DF_BOOL = 3 /* one byte */ } df_type;

/* A conditioning input. The model owns it. Later versions of the library may add members at the end. */
typedef struct df_input {
  const char* name;
  const int64_t* shape; /* for one sample, `rank` sizes */
  int64_t elements;     /* for one sample: their product */
  int64_t classes;      /* of a label, which is 0 to classes - 1; else -1 */
  size_t bytes;         /* of the values for one sample */
  double null_value;    /* of every element: no condition; 0 without one */
  int32_t rank;
  int32_t type; /* df_type */
  int32_t has_null;
} df_input;

/* Number `input` of the conditioning inputs; NULL if there is none. */
DF_API const df_input* df_input_at(const df_model* model, int32_t input);

/* ---- sampling --------------------------------------------------------------------------------------------------------------- */

/* Values of a conditioning input: `bytes` bytes in its type, row-major, for one sample, which all samples get, or for each. */
typedef struct df_value {
  const char* name;
  const void* data;
  size_t bytes;
} df_value;

/* A request to end calls of df_sample from another thread. */
typedef struct df_stop df_stop;

/* Members that are 0 or NULL have their defaults. */
typedef struct df_request {
  size_t size;           /* sizeof(df_request), by which the library knows the header that the caller has */
  int64_t count;         /* samples, from 1 */
  const uint64_t* seeds; /* one for each sample, which is its index 0; or NULL: */
  uint64_t seed;         /* sample i is index first_index + i of this seed */
  uint32_t first_index;
  int32_t threads;        /* for the network; 0 is DIFFUSE_FAST_NUM_THREADS, else the cores that the process may use */
  const df_value* values; /* by name; an input that is not among them gets its null value */
  size_t value_count;
  df_stop* stop;
} df_request;

/* Draws samples into `samples`: (count, *shape) float32, row-major. Unless it returns DF_OK, `samples` is as it was. */
DF_API df_status df_sample(df_model* model, const df_request* request, float* samples);

/* NULL if there is no memory. */
DF_API df_stop* df_stop_new(void);

/* Ends the calls of df_sample that have this stop, and later ones too: they return DF_STOPPED, within some 20 ms. */
DF_API void df_stop_request(df_stop* stop);

/* Frees a stop that no call has; NULL is ignored. */
DF_API void df_stop_free(df_stop* stop);

#ifdef __cplusplus
}
#endif

#endif /* DIFFUSE_FAST_H */
