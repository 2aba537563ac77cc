package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"github.com/kardianos/service"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"

	"github.com/trailpoll/trailpoll/agent/fault"
	acl "github.com/trailpoll/trailpoll/installer/windows"
)

const whereLogIs = `the event log (Application, source trailpoll) and C:\ProgramData\trailpoll\trailpoll.log say why`

// mayControl asks for the very right that is needed. Whether the process is
// elevated would be something else where user account control is off.
func mayControl() error {
	m, err := mgr.Connect()
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return &fault.Error{Op: "controlling the service", Err: errors.New("this needs an administrator"),
			Hint: `start the command in a window that was opened with "Run as administrator"`}
	}
	if err != nil {
		return fmt.Errorf("asking the service control manager: %w", err)
	}
	return m.Disconnect()
}

// programPath returns the path of the program, and an error where the
// service's account could not start it.
func programPath() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding the program: %w", err)
	}
	if profiles := filepath.Join(os.Getenv("SystemDrive")+`\`, "Users") + `\`; strings.HasPrefix(strings.ToLower(path), strings.ToLower(profiles)) {
		return "", &fault.Error{Op: "looking at the program", Err: fmt.Errorf("%s is in a user's profile, which the service can't read", path),
			Hint: `copy it to C:\Program Files\trailpoll and run it from there`}
	}
	return path, nil
}

func (i *installation) library() (service.Service, error) {
	conf := &service.Config{Name: serviceName, DisplayName: serviceTitle, Description: serviceText}
	if i != nil {
		conf.Executable, conf.Arguments = i.program, []string{"run", "--config", i.path}
		conf.UserName = `NT SERVICE\` + serviceName // a virtual account: no password, no rights but ours
	}
	return service.New(idle{}, conf)
}

func (i *installation) install() error {
	for _, dir := range []string{filepath.Dir(i.path), i.stateDir()} {
		if err := i.protect(dir); err != nil {
			return err
		}
	}
	if _, err := os.Stat(i.path); err == nil {
		if err := setRights(i.path, acl.ConfigSDDL(serviceName)); err != nil {
			return fmt.Errorf("protecting %s: %w", i.path, err)
		}
	}
	s, err := i.library()
	if err != nil {
		return err
	}
	i.onFailure(func() { _ = s.Uninstall() })
	if err := s.Install(); err != nil {
		return err
	}
	return i.settings()
}

// protect makes a directory that only administrators and the service can use,
// or makes one that is there such a directory. It has its rights before
// anything is in it.
func (i *installation) protect(dir string) error {
	sddl := acl.StateSDDL(serviceName)
	sd, err := windows.SecurityDescriptorFromString(sddl)
	if err != nil {
		return fmt.Errorf("making rights: %w", err)
	}
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // means nothing on Windows
		return err
	}
	err = windows.CreateDirectory(name, &windows.SecurityAttributes{Length: uint32(unsafe.Sizeof(windows.SecurityAttributes{})), SecurityDescriptor: sd})
	if err == nil {
		i.onFailure(func() { _ = os.Remove(dir) })
		return nil
	}
	if !errors.Is(err, windows.ERROR_ALREADY_EXISTS) {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	there, err := windows.GetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("asking who owns %s: %w", dir, err)
	}
	owner, _, err := there.Owner()
	if err != nil {
		return fmt.Errorf("asking who owns %s: %w", dir, err)
	}
	if sid := owner.String(); !acl.Trusted(sid, serviceName) && !isUs(owner) {
		return &fault.Error{Op: "looking at " + dir, Err: fmt.Errorf("it was made by somebody who is no administrator (%s), and who may have put something into it", sid),
			Hint: "look at what is in it, move what you need away, and remove it"}
	}
	if err := setRights(dir, sddl); err != nil {
		return fmt.Errorf("protecting %s: %w", dir, err)
	}
	return nil
}

// isUs reports whether an identity is that of the user who runs this, who is
// an administrator: mayControl has asked.
func isUs(sid *windows.SID) bool {
	u, err := windows.GetCurrentProcessToken().GetTokenUser()
	return err == nil && sid.Equals(u.User.Sid)
}

func setRights(path, sddl string) error {
	sd, err := windows.SecurityDescriptorFromString(sddl)
	if err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return err
	}
	return windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION,
		owner, nil, dacl, nil)
}

// settings makes the settings that the library does not know. A system that
// refuses one gets a service without it.
func (i *installation) settings() error {
	s, done, err := openService()
	if err != nil {
		return err
	}
	defer done()
	set := func(what string, level uint32, info unsafe.Pointer) {
		if err := windows.ChangeServiceConfig2(s.Handle, level, (*byte)(info)); err != nil {
			i.say("note: this system does not take %s (%v)", what, err)
		}
	}
	delayed := windows.SERVICE_DELAYED_AUTO_START_INFO{IsDelayedAutoStartUp: 1}
	set("a delayed start", windows.SERVICE_CONFIG_DELAYED_AUTO_START_INFO, unsafe.Pointer(&delayed)) //nolint:gosec // as Windows takes it
	kind := uint32(windows.SERVICE_SID_TYPE_UNRESTRICTED)
	set("an identity for the service", windows.SERVICE_CONFIG_SERVICE_SID_INFO, unsafe.Pointer(&kind)) //nolint:gosec // as Windows takes it
	wait := uint32(3 * time.Minute / time.Millisecond)
	set("time before a shutdown", windows.SERVICE_CONFIG_PRESHUTDOWN_INFO, unsafe.Pointer(&wait)) //nolint:gosec // as Windows takes it
	// At once, then soon, then every minute: no hot loop.
	err = s.SetRecoveryActions([]mgr.RecoveryAction{
		{Type: mgr.ServiceRestart, Delay: time.Second},
		{Type: mgr.ServiceRestart, Delay: 10 * time.Second},
		{Type: mgr.ServiceRestart, Delay: time.Minute},
	}, uint32(24*time.Hour/time.Second))
	if err != nil {
		i.say("note: this system does not take recovery actions (%v)", err)
	}
	if err := s.SetRecoveryActionsOnNonCrashFailures(true); err != nil {
		i.say("note: this system does not take recovery actions for errors (%v)", err)
	}
	return nil
}

// openService opens the service, as the manager shows it; done lets go of it.
func openService() (s *mgr.Service, done func(), err error) {
	m, err := mgr.Connect()
	if err != nil {
		return nil, nil, fmt.Errorf("asking the service control manager: %w", err)
	}
	s, err = m.OpenService(serviceName)
	if err != nil {
		_ = m.Disconnect()
		if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
			err = service.ErrNotInstalled
		}
		return nil, nil, err
	}
	return s, func() { _ = s.Close(); _ = m.Disconnect() }, nil
}

func serviceState() (string, error) {
	s, err := (*installation)(nil).library()
	if err != nil {
		return "", err
	}
	return libraryState(s)
}

func startService(out io.Writer) error {
	s, done, err := openService()
	if err != nil {
		return notInstalled(err)
	}
	defer done()
	if err := s.Start(); err != nil && !errors.Is(err, windows.ERROR_SERVICE_ALREADY_RUNNING) {
		return &fault.Error{Op: "starting the service", Err: err, Hint: whereLogIs}
	}
	st, err := until(s, time.Minute, func(st svc.State) bool { return st == svc.Running || st == svc.Stopped })
	if err == nil && st.State != svc.Running {
		err = fmt.Errorf("it ended at once (code %d, %d)", st.Win32ExitCode, st.ServiceSpecificExitCode)
	}
	if err != nil {
		return &fault.Error{Op: "starting the service", Err: err, Hint: whereLogIs}
	}
	_, err = fmt.Fprintln(out, "the service has been started")
	return err
}

// drainMost is longer than any stop takes that goes in order: what the drain
// may take at most is in the configuration.
const drainMost = 3 * time.Minute

func stopService(out io.Writer) error {
	s, done, err := openService()
	if err != nil {
		return notInstalled(err)
	}
	defer done()
	if err := halt(s); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, "the service has been stopped")
	return err
}

func halt(s *mgr.Service) error {
	if _, err := s.Control(svc.Stop); err != nil && !errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return &fault.Error{Op: "stopping the service", Err: err, Hint: whereLogIs}
	}
	if _, err := until(s, drainMost, func(st svc.State) bool { return st == svc.Stopped }); err != nil {
		return &fault.Error{Op: "stopping the service", Err: err, Hint: whereLogIs}
	}
	return nil
}

// until waits until the service is in a state. The manager can't be waited on
// for that, so it is asked again and again.
func until(s *mgr.Service, most time.Duration, there func(svc.State) bool) (svc.Status, error) {
	end := time.NewTimer(most)
	defer end.Stop()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		st, err := s.Query()
		if err != nil || there(st.State) {
			return st, err
		}
		select {
		case <-look.C:
		case <-end.C:
			return st, fmt.Errorf("it takes longer than %v", most)
		}
	}
}

func restartService(out io.Writer) error {
	s, done, err := openService()
	if err != nil {
		return notInstalled(err)
	}
	err = halt(s)
	done()
	if err != nil {
		return err
	}
	return startService(out)
}

func uninstallService(out io.Writer) error {
	s, done, err := openService()
	if err != nil {
		return notInstalled(err)
	}
	err = halt(s)
	if err == nil {
		err = s.Delete()
	}
	done()
	if err != nil {
		return err
	}
	_ = eventlog.Remove(serviceName) // it need not be there
	_, err = fmt.Fprintln(out, "the service is removed; configuration, state and log stay")
	return err
}

// forService gives a configuration the rights that the service needs, and
// takes all others, where an administrator writes it.
func forService(path string) error {
	if mayControl() != nil {
		return nil //nolint:nilerr // it belongs to whoever writes it then
	}
	return setRights(path, acl.ConfigSDDL(serviceName))
}
