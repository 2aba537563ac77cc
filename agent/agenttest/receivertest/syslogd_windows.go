package receivertest

import "os"

// There are no such daemons on Windows, and no such signals.
var (
	stopSignal     = os.Kill
	continueSignal = os.Kill
)
