package receivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ErrNoDaemon means that a syslog daemon or a part of it is not on this machine.
var ErrNoDaemon = errors.New("not installed")

// Daemon is a syslog receiver that nobody here wrote: a process of its own,
// listening on loopback, that writes what it takes to files, one a listener. It
// serves one test and is not safe for concurrent use.
type Daemon struct {
	dir     string
	command []string
	env     []string
	ports   map[string]string // a listener's name → host:port
	process *exec.Cmd
	said    bytes.Buffer
}

// The listeners of a Daemon. Those with TLS ask for a client certificate that
// carries DaemonClient.
const (
	ListenUDP     = "udp"
	ListenTCP     = "tcp"    // rsyslog: both framings; syslog-ng: octet counting
	ListenLF      = "tcp-lf" // syslog-ng alone: RFC 5424 with a line feed
	ListenBSD     = "bsd"    // syslog-ng alone: RFC 3164 with a line feed
	ListenTLS     = "tls"
	ListenRELP    = "relp"     // rsyslog alone
	ListenRELPTLS = "relp-tls" // rsyslog alone
)

// DaemonClient is the name that a client's certificate must carry.
const DaemonClient = "agent.example"

// What stands before a message's header and text in a daemon's file, so that one
// that a kill has torn is told from the next, which stands on the same line.
const (
	storedHeader = "=-=header=-= "
	storedText   = " =-=text=-= "
)

const (
	rsyslogHead = `
global(workDirectory="%[1]s" maxMessageSize="256k" parser.escapeControlCharactersOnReceive="off"
  defaultNetstreamDriverCAFile="%[1]s/ca.crt" defaultNetstreamDriverCertFile="%[1]s/server.crt" defaultNetstreamDriverKeyFile="%[1]s/server.key")
main_queue(queue.type="Direct")
template(name="whole" type="string" string="` + storedHeader + `%%hostname%% %%app-name%% %%msgid%% %%structured-data%%` + storedText + `%%msg%%\n")
module(load="imudp")
module(load="imptcp")
module(load="imrelp" tls.tlslib="openssl")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/name" permittedPeer=["` + DaemonClient + `"] maxFrameSize="300000")
`
	rsyslogRELPTLS = `input(type="imrelp" address="127.0.0.1" port="@PORT@" maxDataSize="300k" ruleset="@NAME@" tls="on" tls.caCert="@DIR@/ca.crt"
  tls.myCert="@DIR@/server.crt" tls.myPrivKey="@DIR@/server.key" tls.authMode="name" tls.permittedPeer=["` + DaemonClient + `"])
`
	rsyslogRuleset = `ruleset(name="%[1]s" queue.type="Direct") { action(type="omfile" file="%[2]s/%[1]s.out" template="whole" asyncWriting="off" flushOnTXEnd="on") }
`
)

var rsyslogInputs = map[string]string{
	ListenUDP:     `input(type="imudp" address="127.0.0.1" port="@PORT@" rcvbufSize="8m" ruleset="@NAME@")` + "\n",
	ListenTCP:     `input(type="imptcp" address="127.0.0.1" port="@PORT@" ruleset="@NAME@" supportOctetCountedFraming="on" maxFrameSize="300000")` + "\n",
	ListenTLS:     `input(type="imtcp" address="127.0.0.1" port="@PORT@" ruleset="@NAME@" supportOctetCountedFraming="on")` + "\n",
	ListenRELP:    `input(type="imrelp" address="127.0.0.1" port="@PORT@" maxDataSize="300k" oversizeMode="abort" ruleset="@NAME@")` + "\n",
	ListenRELPTLS: rsyslogRELPTLS,
}

// NewRsyslog writes the configuration of an rsyslogd into dir. Its queues are
// direct: a message is in its file before the next is read, or answered. The
// certificates are ca's.
func NewRsyslog(dir string, ca *CA) (*Daemon, error) {
	program, err := exec.LookPath("rsyslogd")
	if err != nil {
		return nil, fmt.Errorf("rsyslogd (package rsyslog): %w", ErrNoDaemon)
	}
	for part, pkg := range map[string]string{"lmnsd_gtls.so": "rsyslog-gnutls", "imrelp.so": "rsyslog-relp"} {
		if found, _ := filepath.Glob("/usr/lib/*/rsyslog/" + part); len(found) == 0 {
			return nil, fmt.Errorf("rsyslog's %s (package %s): %w", part, pkg, ErrNoDaemon)
		}
	}
	d := &Daemon{dir: dir, ports: map[string]string{}}
	d.command = []string{program, "-n", "-f", d.path("rsyslog.conf"), "-i", d.path("pid")}
	conf := fmt.Sprintf(rsyslogHead, dir)
	for name, input := range rsyslogInputs {
		port, err := d.listener(name)
		if err != nil {
			return nil, err
		}
		conf += strings.NewReplacer("@DIR@", dir, "@PORT@", port, "@NAME@", name).Replace(input)
		conf += fmt.Sprintf(rsyslogRuleset, name, dir)
	}
	return d, d.write("rsyslog.conf", conf, ca)
}

const syslogNG = `@version: %[1]s
options { keep-hostname(yes); use-dns(no); log-msg-size(300000); stats-freq(0); chain-hostnames(no); };
template whole { template("` + storedHeader + `$HOST $PROGRAM $MSGID $SDATA` + storedText + `$MSG\n"); };
source udp    { network(ip("127.0.0.1") port(%[3]s) transport("udp") so-rcvbuf(8388608) flags(syslog-protocol)); };
source tcp    { syslog(ip("127.0.0.1") port(%[4]s) transport("tcp")); };
source tcp-lf { network(ip("127.0.0.1") port(%[5]s) transport("tcp") flags(syslog-protocol)); };
source bsd    { network(ip("127.0.0.1") port(%[6]s) transport("tcp")); };
source tls    { syslog(ip("127.0.0.1") port(%[7]s) transport("tls")
  tls(ca-file("%[2]s/ca.crt") cert-file("%[2]s/server.crt") key-file("%[2]s/server.key") peer-verify(required-trusted) trusted-dn("*CN=` + DaemonClient + `*"))); };
`

// NewSyslogNG is NewRsyslog for syslog-ng. As a package it can't stand beside
// rsyslog, so it may also be unpacked into the folder that
// TRAILPOLL_SYSLOG_NG names.
func NewSyslogNG(dir string, ca *CA) (*Daemon, error) {
	root := os.Getenv("TRAILPOLL_SYSLOG_NG")
	program := filepath.Join(root, "usr/sbin/syslog-ng")
	if _, err := os.Stat(program); root == "" || err != nil {
		root = ""
		if program, err = exec.LookPath("syslog-ng"); err != nil {
			return nil, fmt.Errorf("syslog-ng (package syslog-ng-core, unpacked where TRAILPOLL_SYSLOG_NG says): %w", ErrNoDaemon)
		}
	}
	modules, _ := filepath.Glob(filepath.Join(root, "/usr/lib/syslog-ng/[0-9]*"))
	if len(modules) == 0 {
		return nil, fmt.Errorf("syslog-ng's modules: %w", ErrNoDaemon)
	}
	d := &Daemon{dir: dir, ports: map[string]string{}}
	d.command = []string{
		program, "-F", "--no-caps", "--module-path", modules[0], "-f", d.path("syslog-ng.conf"),
		"-p", d.path("pid"), "-c", d.path("ctl"), "-R", d.path("persist"),
	}
	if root != "" {
		d.env = []string{"LD_LIBRARY_PATH=" + filepath.Dir(modules[0])}
	}
	args := []any{filepath.Base(modules[0]), dir}
	outs := ""
	for _, name := range []string{ListenUDP, ListenTCP, ListenLF, ListenBSD, ListenTLS} {
		port, err := d.listener(name)
		if err != nil {
			return nil, err
		}
		args = append(args, port)
		outs += fmt.Sprintf("log { source(%[1]s); destination { file(%[2]q template(whole)); }; flags(flow-control); };\n", name, d.path(name+".out"))
	}
	return d, d.write("syslog-ng.conf", fmt.Sprintf(syslogNG, args...)+outs, ca)
}

func (d *Daemon) path(name string) string { return filepath.Join(d.dir, name) }

// write writes the configuration and the certificates.
func (d *Daemon) write(name, conf string, ca *CA) error {
	if err := os.WriteFile(d.path(name), []byte(conf), 0o600); err != nil {
		return fmt.Errorf("writing a daemon's configuration: %w", err)
	}
	if err := os.WriteFile(d.path("ca.crt"), ca.PEM(), 0o600); err != nil {
		return fmt.Errorf("writing an authority: %w", err)
	}
	if _, _, err := ca.IssueFiles(d.dir, "server", "127.0.0.1", "localhost"); err != nil {
		return err
	}
	return nil
}

// listener chooses a port for a listener. Below those that the system gives to
// connections, so that none takes it while the daemon is down.
func (d *Daemon) listener(name string) (port string, err error) {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		pc, err := net.ListenPacket("udp", addr)
		_ = ln.Close()
		if err != nil {
			continue
		}
		_ = pc.Close()
		d.ports[name] = addr
		_, port, _ = net.SplitHostPort(addr)
		return port, nil
	}
	return "", errors.New("finding a free port: there is none")
}

// Addr is the host and port of a listener, "" if the daemon has none such.
func (d *Daemon) Addr(listener string) string { return d.ports[listener] }

// Start starts the daemon and waits until it listens.
func (d *Daemon) Start(ctx context.Context) error {
	_ = os.Remove(d.path("pid"))                             // of one that was killed
	d.process = exec.Command(d.command[0], d.command[1:]...) //nolint:gosec // a program that NewRsyslog or NewSyslogNG found
	d.process.Env = append(os.Environ(), d.env...)
	d.process.Stdout, d.process.Stderr = &d.said, &d.said
	if err := d.process.Start(); err != nil {
		d.process = nil
		return fmt.Errorf("starting %s: %w", d.command[0], err)
	}
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for _, addr := range d.ports {
		if addr == d.ports[ListenUDP] {
			continue // opened together with the others
		}
		for {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			if err == nil {
				_ = c.Close()
				break
			}
			select {
			case <-look.C:
			case <-ctx.Done():
				d.Kill()
				return fmt.Errorf("waiting until %s listens on %s: %w\n%s", d.command[0], addr, ctx.Err(), d.said.Bytes())
			}
		}
	}
	return nil
}

// Kill ends the process as kill -9 does, if it runs.
func (d *Daemon) Kill() {
	if d.process != nil {
		_ = d.process.Process.Kill()
		_ = d.process.Wait()
		d.process = nil
	}
}

// Pause stops the process as SIGSTOP does, and returns when all its threads
// stand. Resume lets it go on.
func (d *Daemon) Pause() error {
	if err := d.signal(stopSignal); err != nil {
		return err
	}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !d.stands() {
		<-look.C
	}
	return nil
}

// stands reports whether all threads are stopped (proc_pid_stat(5): the state
// behind the name, T), as far as the system tells.
func (d *Daemon) stands() bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", d.process.Process.Pid))
	for _, t := range threads {
		stat, err := os.ReadFile(t)
		if _, state, _ := bytes.Cut(stat, []byte(") ")); err == nil && !bytes.HasPrefix(state, []byte("T")) {
			return false
		}
	}
	return true
}

// Resume goes on after Pause.
func (d *Daemon) Resume() error { return d.signal(continueSignal) }

func (d *Daemon) signal(s os.Signal) error {
	if d.process == nil {
		return errors.New("signalling a daemon: it does not run")
	}
	return d.process.Process.Signal(s)
}

// Stored is one message as the daemon wrote it.
type Stored struct {
	Header string // host, program, message id and structured data, parted by spaces
	Text   []byte // MSG. With RFC 3164 rsyslog puts the space behind the tag to it
}

// Size is how many bytes a listener has stored so far.
func (d *Daemon) Size(listener string) int64 {
	info, err := os.Stat(d.path(listener + ".out"))
	if err != nil {
		return 0
	}
	return info.Size()
}

// Stored returns what a listener has taken so far: whole messages only.
func (d *Daemon) Stored(listener string) ([]Stored, error) {
	content, err := os.ReadFile(d.path(listener + ".out"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading what a daemon stored: %w", err)
	}
	var out []Stored
	for line := range bytes.Lines(content) {
		text, whole := bytes.CutSuffix(line, []byte("\n"))
		begin := bytes.LastIndex(text, []byte(storedHeader))
		if !whole || begin < 0 {
			continue
		}
		header, text, found := bytes.Cut(text[begin+len(storedHeader):], []byte(storedText))
		if found {
			out = append(out, Stored{string(header), text})
		}
	}
	return out, nil
}
