/* One tile as a JPEG. libjpeg reports errors by longjmp, which must not cross Rust: here it ends. */
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <jpeglib.h>
#include <jerror.h>

struct errors {
    struct jpeg_error_mgr base;
    jmp_buf back;
    char *message; /* JMSG_LENGTH_MAX chars */
};

static void fail(j_common_ptr common) {
    struct errors *errors = (struct errors *)common->err;
    common->err->format_message(common, errors->message);
    longjmp(errors->back, 1);
}

static void be_silent(j_common_ptr common) { (void)common; }

/* The buffer is given and never grows. */
static void begin(j_compress_ptr encoder) { (void)encoder; }
static void end(j_compress_ptr encoder) { (void)encoder; }
static boolean full(j_compress_ptr encoder) {
    ERREXIT(encoder, JERR_FILE_WRITE);
    return FALSE;
}

size_t geoworker_jpeg_message_bytes(void) { return JMSG_LENGTH_MAX; }

/* Answers the bytes written to out, or 0 and a message. samples: 1 is grey, 3 red, green, blue. */
size_t geoworker_jpeg(const uint8_t *pixels, uint32_t width, uint32_t height, int samples, int quality, uint8_t *out,
                      size_t capacity, char *message) {
    struct jpeg_compress_struct encoder;
    struct errors errors;
    struct jpeg_destination_mgr to;

    encoder.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = fail;
    errors.base.output_message = be_silent;
    errors.message = message;
    if (setjmp(errors.back)) {
        jpeg_destroy_compress(&encoder);
        return 0;
    }
    /* Destroying is possible even if creating fails. */
    memset((char *)&encoder + sizeof encoder.err, 0, sizeof encoder - sizeof encoder.err);
    jpeg_create_compress(&encoder);

    to.next_output_byte = out;
    to.free_in_buffer = capacity;
    to.init_destination = begin;
    to.empty_output_buffer = full;
    to.term_destination = end;
    encoder.dest = &to;

    encoder.image_width = width;
    encoder.image_height = height;
    encoder.input_components = samples;
    encoder.in_color_space = samples == 3 ? JCS_RGB : JCS_GRAYSCALE;
    /* Colour becomes YCbCr with chroma of half the width and height: what libtiff does, too. */
    jpeg_set_defaults(&encoder);
    jpeg_set_quality(&encoder, quality, TRUE);
    /* As GDAL's default, JPEGTABLESMODE=1: 1 to 18 % smaller. */
    encoder.optimize_coding = TRUE;
    /* No JFIF marker: the TIFF says it all. */
    encoder.write_JFIF_header = FALSE;

    jpeg_start_compress(&encoder, TRUE);
    while (encoder.next_scanline < height) {
        JSAMPROW row = (JSAMPROW)(pixels + (size_t)encoder.next_scanline * width * (size_t)samples);
        jpeg_write_scanlines(&encoder, &row, 1);
    }
    jpeg_finish_compress(&encoder);
    jpeg_destroy_compress(&encoder);
    return capacity - to.free_in_buffer;
}
