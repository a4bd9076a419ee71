/* A mini test framework: a table of named tests, checks that report and go on, one final line of counts.
 *     static const test tests[] = {{"what it shows", function}, ...};
 *     int main(void) { return test_run(tests, sizeof tests / sizeof *tests); } */
#ifndef NIBL_TEST_H
#define NIBL_TEST_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct test {
    const char *name;
    void (*run)(void);
} test;

static unsigned test_failures; /* of the test that runs */

static inline bool test_check(bool ok, const char *file, int line, const char *text) {
    if (!ok) {
        test_failures++;
        if (test_failures <= 20) printf("%s:%d: %s\n", file, line, text);
    }
    return ok;
}

static inline bool test_equal(long long a, long long b, const char *file, int line, const char *text) {
    if (test_check(a == b, file, line, text)) return true;
    if (test_failures <= 20) printf("    %lld, expected %lld\n", a, b);
    return false;
}

/* All are true when the check holds, so that a test can stop: if (!CHECK(p)) return; */
#define CHECK(condition) test_check((condition), __FILE__, __LINE__, #condition)
#define CHECK_EQ(a, b) test_equal((long long)(a), (long long)(b), __FILE__, __LINE__, #a " == " #b)
/* `text` contains `part`. */
#define CHECK_HAS(text, part)                                                                                \
    (CHECK(strstr((text), (part)) != NULL) || (printf("    in \"%s\" no \"%s\"\n", (text), (part)), false))

static inline int test_run(const test *tests, size_t count) {
    unsigned failed = 0;
    for (size_t i = 0; i < count; i++) {
        test_failures = 0;
        tests[i].run();
        if (test_failures > 0) printf("FAILED %s (%u checks)\n", tests[i].name, test_failures);
        failed += test_failures > 0;
    }
    printf("%zu passed, %u failed\n", count - failed, failed);
    return failed > 0;
}

#endif
