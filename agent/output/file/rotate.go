package file

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// due reports whether what is written at now begins a new file.
func (o *Output) due(size int64, now time.Time) bool {
	if o.conf.RotateSize > 0 && size+int64(o.buf.Len()) > o.conf.RotateSize {
		return true
	}
	// By periods and not by the file's age, which no system tells alike, and
	// which a restart would forget.
	age := o.conf.RotateAge
	return age > 0 && o.last.Truncate(age).Before(now.Truncate(age))
}

// rotate moves the file away as <path>-<time>[.n] and opens a new one. The time
// is that of the rotation, so that names sort as their contents do.
func (o *Output) rotate(now time.Time) (size int64, err error) {
	// Windows moves no file that is open.
	o.shut()
	// A crash anywhere in here: the file stands under one of the two names with
	// all that was acknowledged, and the next batch makes what is missing.
	name, err := freeName(o.conf.Path + "-" + now.UTC().Format("20060102T150405Z"))
	if err != nil {
		return 0, err
	}
	if err := os.Rename(o.conf.Path, name); err != nil {
		return 0, fmt.Errorf("rotating: %w", err)
	}
	if size, err = o.open(); err != nil {
		return 0, err
	}
	o.prune()
	return size, nil
}

// freeName returns the first of name, name.1, name.2, … that doesn't exist.
func freeName(name string) (string, error) {
	free := name
	for n := 1; ; n++ {
		if _, err := os.Lstat(free); errors.Is(err, fs.ErrNotExist) {
			return free, nil
		} else if err != nil {
			return "", fmt.Errorf("rotating: %w", err)
		}
		free = name + "." + strconv.Itoa(n)
	}
}

var rotated = regexp.MustCompile(`^-(\d{8}T\d{6}Z)(?:\.(\d{1,9}))?$`)

// prune removes the oldest rotated files past Keep. What it can't remove stays
// for the next time: that must hold up no record.
func (o *Output) prune() {
	if o.conf.Keep == 0 {
		return
	}
	dir, base := filepath.Split(o.conf.Path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	type old struct {
		name, at string
		n        int
	}
	var olds []old
	for _, e := range entries {
		name := e.Name()
		if len(name) <= len(base) || name[:len(base)] != base || !e.Type().IsRegular() {
			continue
		}
		if m := rotated.FindStringSubmatch(name[len(base):]); m != nil {
			n, _ := strconv.Atoi(m[2]) // "" is 0
			olds = append(olds, old{name, m[1], n})
		}
	}
	slices.SortFunc(olds, func(a, b old) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.n, b.n))
	})
	for _, x := range olds[:max(0, len(olds)-o.conf.Keep)] {
		_ = os.Remove(filepath.Join(dir, x.name)) // see above
	}
}
