package config

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"strings"
)

const redacted = "[redacted]"

// Secret is a value that must not be seen. Whatever prints it prints
// "[redacted]"; Reveal alone returns it. It hides its value behind a pointer,
// so that fmt shows an address at most where it can't call our methods. The
// zero Secret is empty. Compare with Equal, not with ==.
type Secret struct{ value *string }

// NewSecret returns a Secret of value.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{&value}
}

// Reveal returns the value.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Empty reports whether there is no value.
func (s Secret) Empty() bool { return s.Reveal() == "" }

// Equal reports whether both hold the same value.
func (s Secret) Equal(other Secret) bool { return s.Reveal() == other.Reveal() }

// String returns "[redacted]".
func (s Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (s Secret) GoString() string { return redacted }

// Format writes "[redacted]", whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "[redacted]".
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON returns "[redacted]" as a string.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// URL is an address that may carry a secret: a proxy's password, or a token in
// the path, as some receivers have it. What prints it shows scheme and host
// only. The zero URL is empty.
type URL struct{ whole Secret }

// NewURL returns a URL of text, which is not checked.
func NewURL(text string) URL { return URL{NewSecret(text)} }

// Reveal returns the whole URL.
func (u URL) Reveal() string { return u.whole.Reveal() }

// Empty reports whether there is none.
func (u URL) Empty() bool { return u.whole.Empty() }

// Equal reports whether both are the same.
func (u URL) Equal(other URL) bool { return u.whole.Equal(other.whole) }

// String returns what RedactURL leaves of it.
func (u URL) String() string { return RedactURL(u.Reveal()) }

// GoString returns the same as String.
func (u URL) GoString() string { return u.String() }

// Format writes what String returns, whatever the verb.
func (u URL) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.String()) }

// MarshalText returns what String returns.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// RedactURL returns scheme and host of a URL. User, path and query are left
// out, since any of them may be a secret; so is all of what is no URL.
func RedactURL(text string) string {
	if text == "" {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return redacted
	}
	s := u.Scheme + "://" + u.Host
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" {
		s += "/…"
	}
	return s
}

// Env is what a configuration may refer to outside its file.
type Env struct {
	// LookupEnv finds an environment variable, as os.LookupEnv does. nil = none is set.
	LookupEnv func(name string) (string, bool)
	// ReadFile reads a file, as os.ReadFile does. nil = there is none.
	ReadFile func(path string) ([]byte, error)
}

// SystemEnv returns the process's environment and the machine's files. A
// secret's file is read up to 64 KiB.
func SystemEnv() Env {
	return Env{LookupEnv: os.LookupEnv, ReadFile: readSecretFile}
}

const maxSecret = 64 << 10

func readSecretFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(data) > maxSecret {
		return nil, errors.New("longer than 64 KiB")
	}
	return data, err
}

var flawOfControl = flaw{"there is a line break or another control character in it", "write it on one line"}

// flaw is a message and what to do about it.
type flaw struct{ message, remedy string }

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// resolve follows env:NAME and file:/path. literal says that text was neither,
// and is the value itself. A flaw never quotes the value, nor a reference that
// doesn't look like one.
func (e Env) resolve(text string) (value string, literal bool, f *flaw) {
	if name, ok := strings.CutPrefix(text, "env:"); ok {
		return e.fromEnv(name)
	}
	if path, ok := strings.CutPrefix(text, "file:"); ok {
		return e.fromFile(path)
	}
	return text, true, nil
}

// Reread returns the credentials with the access key as its files hold it now.
// What did not come from a file is as it was. The error names the key and its
// file, and holds no secret.
func (c Credentials) Reread(env Env) (Credentials, error) {
	read := func(key, file string) (string, error) {
		value, _, flaw := env.fromFile(file)
		if flaw == nil && hasControl(value) {
			flaw = &flawOfControl
		}
		if flaw != nil {
			return "", fmt.Errorf("%s: %s", key, flaw.message)
		}
		return value, nil
	}
	if c.Files.AccessKeyID != "" {
		v, err := read("access_key_id", c.Files.AccessKeyID)
		if err != nil {
			return c, err
		}
		c.AccessKeyID = v
	}
	for _, k := range []struct {
		key, file string
		to        *Secret
	}{
		{"secret_access_key", c.Files.SecretAccessKey, &c.SecretAccessKey},
		{"session_token", c.Files.SessionToken, &c.SessionToken},
	} {
		if k.file == "" {
			continue
		}
		v, err := read(k.key, k.file)
		if err != nil {
			return c, err
		}
		*k.to = NewSecret(v)
	}
	return c, nil
}

func (e Env) fromEnv(name string) (string, bool, *flaw) {
	if !envName.MatchString(name) {
		return "", false, &flaw{"what follows env: is not the name of an environment variable", "write env:NAME"}
	}
	value, ok := "", false
	if e.LookupEnv != nil {
		value, ok = e.LookupEnv(name)
	}
	switch {
	case !ok:
		return "", false, &flaw{
			"the environment variable " + name + " is not set",
			"set it where the agent is started, or write file:/path",
		}
	case value == "":
		return "", false, &flaw{"the environment variable " + name + " is empty", "set it, or remove the key"}
	}
	return value, false, nil
}

func (e Env) fromFile(path string) (string, bool, *flaw) {
	if path == "" {
		return "", false, &flaw{"no path follows file:", "write file:/path"}
	}
	err := os.ErrNotExist
	var data []byte
	if e.ReadFile != nil {
		data, err = e.ReadFile(path)
	}
	if err != nil {
		// The path stands in the error of the library, too; once is enough.
		if pe, ok := errors.AsType[*os.PathError](err); ok {
			err = pe.Err
		}
		return "", false, &flaw{
			fmt.Sprintf("the file %q can't be read: %v", path, err),
			"create it, readable by the user that the agent runs as",
		}
	}
	value := strings.TrimRight(string(data), "\r\n")
	if value == "" {
		return "", false, &flaw{fmt.Sprintf("the file %q is empty", path), "write the value into it, or remove the key"}
	}
	return value, false, nil
}
