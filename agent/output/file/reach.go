package file

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Reach tries whether the file can be written, and says so. It leaves the file
// alone, and makes none, so that it may run while another process writes to it.
// The error is a fault.Error.
func (o *Output) Reach(context.Context) (answer string, err error) {
	info, err := os.Stat(o.conf.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f, err := os.CreateTemp(filepath.Dir(o.conf.Path), ".trailpoll-check-*")
		if err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
		if err != nil {
			return "", o.failed(err)
		}
		return "it can be made", nil
	case err != nil:
		return "", o.failed(err)
	case !info.Mode().IsRegular():
		return "", o.failed(errNotRegular)
	}
	f, err := os.OpenFile(o.conf.Path, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return "", o.failed(err)
	}
	return "it can be written", nil
}
