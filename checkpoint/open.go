package checkpoint

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// Options say how to open a store. The zero value is good.
type Options struct {
	// Timeout is how long Open waits for another agent to leave; 0 = 1 s.
	Timeout time.Duration
	// Notice, if set, is told once what an operator should know: a file set
	// aside, migrated, compacted. It is called from Open only.
	Notice func(string)

	readOnly bool // by OpenReadOnly

	// For tests.
	maxSize    int          // bytes; stands in for a full disk
	smallFile  int64        // bytes; see smallFile
	compactMin int64        // bytes; see compactFrom
	hashKey    []byte       // instead of a random one
	step       func(string) // called where a crash may come between
}

// Report is what Open found and did.
type Report struct {
	// Fresh: there was no state, or none that could be used, and a new store
	// was made.
	Fresh bool
	// Rebuilt: this Open set a damaged file aside. See Store.Rebuilt, which
	// remembers it.
	Rebuilt bool
	// SetAside is where the damaged file is now; "" if there was none.
	SetAside string
	// Damage is what did not fit, with Rebuilt.
	Damage string
	// MigratedFrom is the version that the file had; 0 if it was today's.
	MigratedFrom int
	// Compacted is by how many bytes the file became smaller; 0 if it was not
	// compacted.
	Compacted int64
}

// Open opens the store in dir, a directory that it makes if need be (mode
// 0700). A damaged file is set aside in dir and a new store made, which the
// Report says. A second agent is refused with ErrHeld, a file of a newer
// program with ErrNewer. The store is to be closed by whoever opened it.
func Open(dir string, o Options) (*Store, *Report, error) {
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	if o.smallFile == 0 {
		o.smallFile = smallFile
	}
	if o.compactMin == 0 {
		o.compactMin = compactFrom
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, stateError(dir, err)
	}
	lock, err := lockDir(dir, o.Timeout)
	if err != nil {
		if errors.Is(err, ErrHeld) {
			return nil, nil, err
		}
		return nil, nil, stateError(dir, err)
	}
	s := &Store{dir: dir, opts: o, lock: lock}
	s.scratch.New = func() any { return new(lookup) }
	report, err := s.open()
	if err != nil {
		s.mu.Lock()
		_ = s.closeDB()
		s.mu.Unlock()
		_ = lock.release()
		return nil, nil, err
	}
	return s, report, nil
}

// stateError is for a directory that can't be used.
func stateError(dir string, err error) error {
	hint := "set state_dir to a directory on a local disk that the agent may write to"
	if isDiskFull(err) {
		hint = "make room on the disk that holds the state directory"
	}
	return &fault.Error{
		Kind: fault.Misconfigured, Op: fmt.Sprintf("opening the state in %q", dir), Err: err, Hint: hint,
	}
}

// open opens the file, or makes one; the lock is held.
func (s *Store) open() (*Report, error) {
	r := new(Report)
	// What a crash left unfinished was never in use.
	for _, name := range [...]string{newName, compactName} {
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, stateError(s.dir, err)
		}
	}
	why, err := s.examine()
	if err == nil && why == "" {
		if err = s.load(r); err == nil {
			err = s.compactIfItPays(r)
		}
		if isDamage(err) {
			why = err.Error()
			s.mu.Lock()
			_ = s.closeDB()
			s.mu.Unlock()
			err = writeMarker(s.dir, why)
		}
	}
	if err != nil {
		return nil, s.openError(err)
	}
	if why != "" {
		if err := s.replace(why, r); err != nil {
			return nil, s.openError(err)
		}
	}
	return r, nil
}

// openError gives an error from opening its remedy.
func (s *Store) openError(err error) error {
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if errors.Is(err, bolterrors.ErrTimeout) {
		return &fault.Error{
			Kind: fault.Misconfigured, Op: fmt.Sprintf("opening the state in %q", s.dir),
			Err:  fmt.Errorf("%w: %s is locked by another program", ErrHeld, fileName),
			Hint: "end the program that has the file open",
		}
	}
	return stateError(s.dir, err)
}

// examine looks at what is in the directory before bbolt touches it. It
// returns why the file must be set aside, "" if it must not. Where damage is
// found the marker is written, so that a crash from here on does not hide it.
func (s *Store) examine() (why string, err error) {
	why, noted, err := s.look()
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // there is no state yet
	}
	if err == nil && why != "" && !noted {
		err = writeMarker(s.dir, why)
	}
	return why, err
}

// look is examine without writing down what it finds; noted tells that it was
// found before. Its error is fs.ErrNotExist where there is no file.
func (s *Store) look() (why string, noted bool, err error) {
	marker, err := os.ReadFile(filepath.Join(s.dir, markerName))
	if err == nil {
		return fmt.Sprintf("noted before: %.300q", bytes.TrimSpace(marker)), true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	f, err := os.Open(s.path())
	if err != nil {
		return "", false, err
	}
	err = checkFile(f, s.opts.smallFile)
	if isDamage(err) {
		why, err = err.Error(), nil
	}
	return why, false, errors.Join(err, f.Close())
}

// replace sets the file aside and makes a new store. The marker goes last: a
// crash at any point before leads here again, and the new store always knows
// that it stands in for a lost one.
func (s *Store) replace(why string, r *Report) error {
	s.opts.step("marked")
	var aside string
	for n := 0; ; n++ {
		aside = filepath.Join(s.dir, asideName+time.Now().UTC().Format("20060102T150405Z"))
		if n > 0 {
			aside += fmt.Sprintf("-%d", n)
		}
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	err := os.Rename(s.path(), aside)
	switch {
	case err == nil:
		r.SetAside = aside
	case !errors.Is(err, fs.ErrNotExist): // else a crash came between
		return err
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	s.opts.step("set aside")
	if err := s.create(true); err != nil {
		return err
	}
	s.opts.step("created")
	if err := s.load(r); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(s.dir, markerName)); err != nil {
		return err
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	s.opts.step("marker removed")
	r.Fresh, r.Rebuilt, r.Damage = true, true, why
	s.opts.Notice(fmt.Sprintf("the checkpoint was damaged (%s): set aside as %q and begun anew from the late "+
		"horizon; records will be repeated, none lost", why, aside))
	return nil
}

// create makes a new file under another name and renames it, so that there is
// never half a file under the right one.
func (s *Store) create(rebuilt bool) error {
	path := filepath.Join(s.dir, newName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, _, err := s.openBolt(path)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		if err := makeBuckets(tx, buckets()...); err != nil {
			return err
		}
		key := s.opts.hashKey
		if key == nil {
			key = make([]byte, 16)
			if _, err := rand.Read(key); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		err := meta.Put(keyHash, seal(keyHash, bytes.Clone(key)))
		if rebuilt {
			err = errors.Join(err, meta.Put(keyRebuilt, seal(keyRebuilt, []byte{1})))
		}
		return errors.Join(err,
			meta.Put(keySchema, seal(keySchema, binary.BigEndian.AppendUint32(nil, schema))))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	s.opts.step("made")
	if err := os.Rename(path, s.path()); err != nil {
		return err
	}
	return syncDir(s.dir)
}

// openBolt opens a bbolt file under its lock, and returns the file beneath.
func (s *Store) openBolt(path string) (db *bolt.DB, file *os.File, err error) {
	err = guarded(func() error {
		db, err = bolt.Open(path, 0o600, &bolt.Options{
			Timeout:      s.opts.Timeout, // 0 would wait for ever
			FreelistType: bolt.FreelistMapType,
			MaxSize:      s.opts.maxSize,
			ReadOnly:     s.opts.readOnly,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				f, err := os.OpenFile(name, flag, mode)
				if err == nil && flag&os.O_CREATE != 0 {
					if err = adopt(f); err != nil {
						_ = f.Close()
						return nil, err
					}
				}
				file = f
				return f, err
			},
		})
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum):
		err = damagef("bbolt refuses it: %v", err)
	case isDamage(err) && file != nil:
		_ = file.Close() // bbolt broke off while opening and left it open
	}
	return db, file, err
}

// reopen opens the database anew in place.
func (s *Store) reopen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return ErrClosed
	}
	if err := guarded(s.db.Close); err != nil {
		return fmt.Errorf("opening the checkpoint again: %w", err)
	}
	db, file, err := s.openBolt(s.path())
	if err != nil {
		s.db = nil
		return fmt.Errorf("opening the checkpoint again: %w", err)
	}
	s.db, s.file = db, file
	return nil
}

// load opens the file, making one if there is none, and reads what the store
// keeps in memory. Everything that it reads is checked.
func (s *Store) load(r *Report) error {
	if _, err := os.Lstat(s.path()); errors.Is(err, fs.ErrNotExist) {
		if err := s.create(false); err != nil {
			return err
		}
		r.Fresh = true
	} else if err != nil {
		return err
	}
	db, file, err := s.openBolt(s.path())
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.db, s.file = db, file
	s.mu.Unlock()
	read := func(tx *bolt.Tx) error { return s.read(tx, r) }
	if err := s.tryRun(false, read); err != nil || r.MigratedFrom == 0 {
		return err
	}
	from := r.MigratedFrom
	if err := s.tryRun(true, func(tx *bolt.Tx) error { return migrate(tx, from) }); err != nil {
		return err
	}
	s.opts.Notice(fmt.Sprintf("the checkpoint was brought from version %d to %d", from, schema))
	err = s.tryRun(false, read)
	r.MigratedFrom = from
	return err
}

// migrations[n] brings a file from version n+1 to n+2, in the transaction it
// is given. A crash within leaves the older version.
func migrations() []func(*bolt.Tx) error {
	return []func(*bolt.Tx) error{
		func(tx *bolt.Tx) error { // re-syncs
			return makeBuckets(tx, bucketCovered, bucketResyncs)
		},
	}
}

func makeBuckets(tx *bolt.Tx, names ...[]byte) error {
	for _, name := range names {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return nil
}

func migrate(tx *bolt.Tx, from int) error {
	for _, step := range migrations()[from-1:] {
		if err := step(tx); err != nil {
			return fmt.Errorf("migrating the checkpoint: %w", err)
		}
	}
	return tx.Bucket(bucketMeta).Put(keySchema, seal(keySchema, binary.BigEndian.AppendUint32(nil, schema)))
}

// read fills the store's memory from the file.
func (s *Store) read(tx *bolt.Tx, r *Report) error {
	version, err := readSchema(tx)
	if err != nil {
		return err
	}
	if version > schema {
		return &fault.Error{
			Kind: fault.Misconfigured, Op: fmt.Sprintf("opening the state in %q", s.dir),
			Err:  fmt.Errorf("%w (version %d; this program knows %d)", ErrNewer, version, schema),
			Hint: "run the newer version of trailpoll, or give this one a state_dir of its own",
		}
	}
	r.MigratedFrom = 0
	if version < schema {
		r.MigratedFrom = version
		return nil
	}
	for _, name := range buckets() {
		if tx.Bucket(name) == nil {
			return damagef("the bucket %s is missing", name)
		}
	}
	meta := tx.Bucket(bucketMeta)
	key, err := unseal("meta", keyHash, meta.Get(keyHash))
	if err != nil {
		return err
	}
	if len(key) != 16 {
		return damagef("the hash key has %d bytes", len(key))
	}
	s.lanesMu.Lock()
	defer s.lanesMu.Unlock()
	s.hash = keyOf(key)
	s.rebuilt = meta.Get(keyRebuilt) != nil
	if err := s.readLanes(tx); err != nil {
		return err
	}
	return verify(tx, s.lanes, tx.Size() <= s.opts.smallFile)
}

// readSchema returns the file's version.
func readSchema(tx *bolt.Tx) (int, error) {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return 0, damagef("the bucket meta is missing")
	}
	v, err := unseal("meta", keySchema, meta.Get(keySchema))
	if err != nil {
		return 0, err
	}
	if len(v) != 4 || binary.BigEndian.Uint32(v) == 0 {
		return 0, damagef("the version can't be read")
	}
	return int(binary.BigEndian.Uint32(v)), nil
}

// readLanes reads all lanes; lanesMu is held.
func (s *Store) readLanes(tx *bolt.Tx) error {
	s.ids = map[progress.Lane]uint32{}
	s.lanes = map[uint32]progress.Lane{}
	return tx.Bucket(bucketLanes).ForEach(func(k, v []byte) error {
		v, err := unseal("lanes", k, v)
		if err != nil {
			return err
		}
		l, err := parseLane(k)
		if err != nil {
			return err
		}
		if len(v) != 4 {
			return damagef("a lane without a number")
		}
		id := binary.BigEndian.Uint32(v)
		if _, ok := s.lanes[id]; ok {
			return damagef("two lanes with one number")
		}
		s.ids[l], s.lanes[id] = id, l
		return nil
	})
}
