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
	"strings"
	"time"
)

// due reports whether what is written at now begins a new file.
func (o *Output) due(size int64, now time.Time) bool {
	if o.conf.RotateSize > 0 && size+int64(len(o.buf)) > o.conf.RotateSize {
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

// freeName returns the first of name, name.1, name.2, … that doesn't exist, nor
// as a compressed file.
func freeName(name string) (string, error) {
	free := name
	for n := 1; ; n++ {
		taken := false
		for _, packed := range [...]string{"", ".gz", ".xz", ".zst"} {
			_, err := os.Lstat(free + packed)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return "", fmt.Errorf("rotating: %w", err)
			}
			taken = taken || err == nil
		}
		if !taken {
			return free, nil
		}
		free = name + "." + strconv.Itoa(n)
	}
}

var rotated = regexp.MustCompile(`^-(\d{8}T\d{6}Z)(?:\.(\d{1,9}))?(?:\.(?:gz|xz|zst))?$`)

// old is a rotated file, under all its names: while it is compressed it stands
// there twice.
type old struct {
	at    string
	n     int
	names []string
}

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
	var olds []old
	for _, e := range entries {
		tail, ours := strings.CutPrefix(e.Name(), base)
		if !ours || !e.Type().IsRegular() {
			continue
		}
		m := rotated.FindStringSubmatch(tail)
		if m == nil {
			continue
		}
		n, _ := strconv.Atoi(m[2]) // "" is 0
		x := old{at: m[1], n: n, names: []string{e.Name()}}
		at, found := slices.BinarySearchFunc(olds, x, byAge)
		if found {
			olds[at].names = append(olds[at].names, e.Name())
			continue
		}
		olds = slices.Insert(olds, at, x)
	}
	for _, x := range olds[:max(0, len(olds)-o.conf.Keep)] {
		for _, name := range x.names {
			_ = os.Remove(filepath.Join(dir, name)) // see above
		}
	}
}

func byAge(a, b old) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.n, b.n)) }
