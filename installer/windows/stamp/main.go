// Command stamp makes an MSI say the same each time it is built: it replaces
// the package code and the two times in its summary, which wixl makes up.
//
//	stamp MSI OLD-CODE NEW-CODE SECONDS
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: stamp MSI OLD-CODE NEW-CODE SECONDS")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "stamp:", err)
		os.Exit(1)
	}
}

func run(path, was, code, seconds string) error {
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return err
	}
	msi, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := stamp(msi, was, code, time.Unix(n, 0), time.Now()); err != nil {
		return err
	}
	return os.WriteFile(path, msi, 0o644) //nolint:gosec // for everybody to read
}

// filetime returns a time as a property set has it (MS-OLEPS 2.11, MS-DTYP
// 2.3.3): 100 ns since 1601.
func filetime(t time.Time) uint64 { return uint64(t.Unix()+11644473600) * 10_000_000 }

// stamp changes the bytes of an MSI that was made within the hour before now.
func stamp(msi []byte, was, code string, at, now time.Time) error {
	if len(was) != len(code) || bytes.Count(msi, []byte(was)) != 1 {
		return errors.New("the package code is not there once")
	}
	copy(msi[bytes.Index(msi, []byte(was)):], code)
	kind := []byte{0x40, 0, 0, 0} // VT_FILETIME
	early, late := filetime(now.Add(-time.Hour)), filetime(now.Add(time.Minute))
	found := 0
	for i := 0; i+12 <= len(msi); {
		j := bytes.Index(msi[i:], kind)
		if j < 0 || i+j+12 > len(msi) {
			break
		}
		i += j
		if v := binary.LittleEndian.Uint64(msi[i+4:]); v >= early && v <= late {
			binary.LittleEndian.PutUint64(msi[i+4:], filetime(at))
			found++
		}
		i++
	}
	if found != 2 {
		return fmt.Errorf("%d times found, want those of creation and of the last save", found)
	}
	return nil
}
