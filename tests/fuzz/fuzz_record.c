/* Every reader of common/record: what travels between processes, on the bus, and what is stored. The first byte says
 * which one. */
#include "common/base/macros.h"
#include "common/record/test_checks.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	if (len > 0)
		(void)record_try_bytes(&record_cases[bytes[0] % record_case_count], bytes + 1, len - 1);
	return 0;
}
