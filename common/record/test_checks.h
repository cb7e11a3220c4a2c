/* What must hold of every record that a reader accepted, for tests and fuzz targets: both feed readers bytes that no
 * writer of ours made. */
#ifndef KX_RECORD_TEST_CHECKS_H
#define KX_RECORD_TEST_CHECKS_H

#include "common/record/test_samples.h"

/* Unpacks from a copy of exactly the right size, so that a read past the end is seen. What is refused must be refused
 * with a reason; what is accepted must be in range, and pack again to something that is accepted and packs to the same
 * bytes. Returns whether it was accepted. Broken promises are cmocka assertions: they fail a test, and end a program that
 * runs none. */
bool record_try_bytes(const struct record_case *c, const void *bytes, size_t len);

#endif
