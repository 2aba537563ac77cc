package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxFile is more than any configuration needs: a thousand named accounts take
// a tenth of it.
const maxFile = 1 << 20

// DefaultPath returns where the configuration is looked for if nothing else is
// said.
func DefaultPath() string { return defaultPath }

// Load reads the file at path, and secrets from where it says. The error is of
// type Errors, and the Config is nil with it. A file that others can write to
// is an error, since whoever writes it decides where records go; one that
// others can read while a secret stands in it is a warning. The judges are
// asked about each filter.
func Load(path string, judges ...FilterJudge) (*Config, []Warning, error) {
	data, access, err := read(path)
	if err != nil {
		return nil, nil, Errors{*err}
	}
	c, literals, warnings, errs := parse(path, data, SystemEnv(), judges...)
	var problems Errors
	if access.writable != "" {
		problems = Errors{{File: path, Message: access.writable, Remedy: access.remedy}}
	}
	if e, ok := errors.AsType[Errors](errs); ok {
		problems = append(problems, e...)
	}
	if access.readable != "" && len(literals) > 0 {
		warnings = append([]Warning{{
			File: path, Key: display(literals[0]),
			Message: access.readable + ", and a secret stands in it",
			Remedy:  "run chmod 0600 on it, or write the secret as env:NAME or file:/path",
		}}, warnings...)
	}
	if len(problems) > 0 {
		return nil, warnings, problems
	}
	return c, warnings, nil
}

// access is what others may do with a file; "" = nothing that matters.
type access struct {
	writable string
	readable string
	remedy   string // for writable
}

// read returns a file's contents. The permissions are those of the file that
// was opened, not of what has the name by then.
func read(path string) ([]byte, access, *Problem) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, access{}, &Problem{File: path, Message: "there is no such file",
			Remedy: `write one with "trailpoll config init", or name another with --config`}
	case errors.Is(err, fs.ErrPermission):
		return nil, access{}, &Problem{File: path, Message: "the file may not be read",
			Remedy: "give it to the user that the agent runs as"}
	case err != nil:
		return nil, access{}, unreadable(path, err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, access{}, unreadable(path, err)
	}
	if info.IsDir() {
		return nil, access{}, &Problem{File: path, Message: "this is a directory", Remedy: "name the file in it"}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, access{}, unreadable(path, err)
	}
	if len(data) > maxFile {
		return nil, access{}, &Problem{File: path, Message: "the file is larger than 1 MiB",
			Remedy: "name the configuration file"}
	}
	return data, accessOf(info), nil
}

func unreadable(path string, err error) *Problem {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return &Problem{File: path, Message: fmt.Sprintf("the file can't be read: %v", err)}
}

// Parse reads a configuration that has been loaded already; name is what
// problems call the file. The error is of type Errors, and the Config is nil
// with it.
func Parse(name string, data []byte, env Env, judges ...FilterJudge) (*Config, []Warning, error) {
	c, _, warnings, err := parse(name, data, env, judges...)
	return c, warnings, err
}

// parse also returns the keys whose secret stands in the file itself.
func parse(name string, data []byte, env Env, judges ...FilterJudge) (*Config, []string, []Warning, error) {
	doc, problem := readDocument(name, data)
	if problem != nil {
		return nil, nil, nil, Errors{*problem}
	}
	c := Default()
	d := &decoder{findings: newFindings(doc), env: env}
	d.group("", doc.root, c.fields(), "")
	c.rememberFiles(doc.root)
	d.config(&c)
	d.judged(&c, judges)
	warnings, err := d.result()
	if err != nil {
		return nil, d.literals, warnings, err
	}
	return &c, d.literals, warnings, nil
}

// rememberFiles notes which parts of access keys are read from files, so that
// they can be read again.
func (c *Config) rememberFiles(root map[string]any) {
	raw, _ := root["source"].([]map[string]any)
	for i := range min(len(raw), len(c.Sources)) {
		keys, _ := raw[i]["credentials"].(map[string]any)
		file := func(key string) string {
			s, _ := keys[key].(string)
			path, _ := strings.CutPrefix(s, "file:")
			if path == s {
				return ""
			}
			return path
		}
		c.Sources[i].Credentials.Files = KeyFiles{file("access_key_id"), file("secret_access_key"), file("session_token")}
	}
}

// Validate judges a configuration that was made by a program as one that was
// read from a file is judged. The error is of type Errors. What hangs on
// whether a key was written or left out is not judged.
func (c *Config) Validate() ([]Warning, error) {
	f := newFindings(nil)
	f.config(c)
	return f.result()
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 })
}
