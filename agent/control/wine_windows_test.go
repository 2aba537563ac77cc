package control_test

import (
	"testing"

	"golang.org/x/sys/windows"
)

// skipOnWine skips what needs pipes as Windows has them: an instance that was
// made without the right to read or write is disconnected there, and holds the
// name. wine connects clients to it, and nobody ever answers them.
func skipOnWine(t *testing.T) {
	t.Helper()
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil {
		t.Skip("wine's pipes differ from those of Windows")
	}
}
