"""A Slurm of its own on this machine: one node, two fake GPUs, Debian's packages, everything below one folder.

Every daemon has its own configuration, key, socket and log there and listens on 127.0.0.1. A fake GPU is a character
device, for Slurm 22.05 counts none where `gres.conf` names no file. There are no control groups in a container, so
processes are tracked through /proc and memory is watched by polling (jobacct_gather/linux with OverMemoryKill).
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PACKAGES = ["munge", "slurm-client", "slurmctld", "slurmd", "slurm-wlm-basic-plugins", "slurmdbd", "mariadb-server"]
PORT = 26917  # slurmctld, and the next three: slurmd, slurmdbd, mariadbd
HOST = socket.gethostname().split(".")[0]

CONF = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={port1}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={lab}/munge.sock
StateSaveLocation={lab}/state
SlurmdSpoolDir={lab}/spool
SlurmctldPidFile={lab}/slurmctld.pid
SlurmdPidFile={lab}/slurmd.pid
SlurmctldLogFile={lab}/slurmctld.log
SlurmdLogFile={lab}/slurmd.log
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=2
MinJobAge=300
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
{accounting}
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=16000 Gres=gpu:h200:2 State=UNKNOWN
PartitionName=gpu Nodes={host} MaxTime=2-00:00:00 State=UP
PartitionName=cpu Nodes={host} Default=YES MaxTime=1-00:00:00 State=UP
"""

WITHOUT_DATABASE = "AccountingStorageType=accounting_storage/none"
WITH_DATABASE = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port2}
AccountingStoragePass={lab}/munge.sock
AccountingStoreFlags=job_comment
AccountingStorageTRES=gres/gpu
"""

SLURMDBD = """
AuthType=auth/munge
AuthInfo=socket={lab}/munge.sock
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port2}
SlurmUser={user}
LogFile={lab}/slurmdbd.log
PidFile={lab}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={port3}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
"""


def install() -> str | None:
    """Install what is missing; why that could not be done, if it could not."""
    if all(shutil.which(name, path=full_path()) for name in ("slurmctld", "slurmd", "munged", "mariadbd")):
        return None
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return "no Slurm here, and only root on a Debian can install it"
    quiet = Path("/usr/sbin/policy-rc.d")  # or dpkg starts every daemon it unpacks
    mine = not quiet.exists()
    if mine:
        quiet.write_text("#!/bin/sh\nexit 101\n")
        quiet.chmod(0o755)
    try:
        apt = ["apt-get", "-qq"]
        settings = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in ([*apt, "update"], [*apt, "install", "-y", "--no-install-recommends", *PACKAGES]):
            done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
            if done.returncode:
                return f"{' '.join(command[:3])}: {done.stderr.strip().splitlines()[-1:]}"
    finally:
        if mine:
            quiet.unlink()
    return None


def full_path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


class Lab:
    """up, down, and slurmctld down and up again in between; ended by the pids that it recorded."""

    def __init__(self, folder: Path, database: bool = False) -> None:
        self.folder, self.database = Path(folder).resolve(), database
        self.values = {"lab": self.folder, "host": HOST, "user": os.environ.get("USER") or "root"}
        ports = {"port": PORT, "port1": PORT + 1, "port2": PORT + 2, "port3": PORT + 3}
        self.values |= {"cpus": max(4, os.cpu_count() or 1)} | ports  # two jobs at a time even on two cores

    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": f"{self.folder}/slurm.conf", "PATH": f"{self.folder}/bin:{full_path()}"}

    def call(self, *command: str, timeout: int = 60, check: bool = True) -> str:
        done = subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def up(self) -> "Lab":
        self.down()
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("state", "spool", "bin", "munge"):
            (self.folder / name).mkdir(parents=True)
        self.write("munge/key", os.urandom(1024))
        (self.folder / "munge").chmod(0o700)
        self.configure()
        self.munge()
        if self.database:
            self.start_database()
        self.daemon("slurmctld")
        self.daemon("slurmd")
        self.wait_until_idle()
        return self

    def write(self, name: str, content: str | bytes, mode: int = 0o600) -> None:
        file = self.folder / name
        file.write_bytes(content if isinstance(content, bytes) else content.format(**self.values).encode())
        file.chmod(mode)

    def configure(self) -> None:
        accounting = WITH_DATABASE if self.database else WITHOUT_DATABASE
        self.write("slurm.conf", CONF.replace("{accounting}", accounting), 0o644)
        gpus = [f"NodeName={HOST} Name=gpu Type=h200 File={file}" for file in ("/dev/null", "/dev/zero")]
        self.write("gres.conf", "\n".join(["AutoDetect=off", *gpus, ""]), 0o644)
        # the jobstep plugin drops SLURM_CONF before it calls srun
        self.write("bin/srun", '#!/bin/sh\nSLURM_CONF={lab}/slurm.conf exec /usr/bin/srun "$@"\n', 0o755)

    def munge(self) -> None:
        where = {"key-file": "munge/key", "socket": "munge.sock", "pid-file": "munged.pid"}
        where |= {"log-file": "munged.log", "seed-file": "munge/seed"}
        options = [f"--{key}={self.folder}/{value}" for key, value in where.items()]
        self.call("munged", "--force", "--num-threads=2", *options)

    def start_database(self) -> None:
        data, sock, me = self.folder / "db", self.folder / "db.sock", self.values["user"]
        own = ["--no-defaults", f"--user={me}", f"--datadir={data}"]
        self.call("mariadb-install-db", *own, "--auth-root-authentication-method=normal", timeout=120)
        where = [f"--socket={sock}", "--bind-address=127.0.0.1", f"--port={PORT + 3}"]
        where += [f"--pid-file={self.folder}/mariadbd.pid", "--innodb-buffer-pool-size=64M"]
        own_session = {"start_new_session": True, "env": self.environment()}
        with (self.folder / "mariadbd.log").open("wb") as log:
            subprocess.Popen(["mariadbd", *own, *where], stdout=log, stderr=log, **own_session)
        client = ["mariadb", "--no-defaults", f"--socket={sock}", "--user=root"]
        self.until(lambda: subprocess.run([*client, "-e", "select 1"], capture_output=True).returncode == 0, 60)
        sql = "create database slurm_acct; create user 'slurm'@'127.0.0.1' identified by 'slurm'; "
        self.call(*client, "-e", sql + "grant all on slurm_acct.* to 'slurm'@'127.0.0.1'")
        self.write("slurmdbd.conf", SLURMDBD)
        self.daemon("slurmdbd")
        add = ["sacctmgr", "-i", "add"]
        self.until(lambda: self.tried(*add, "cluster", "lab"), 60)
        self.tried(*add, "account", "lab", "Description=lab", "Organization=lab")
        self.tried(*add, "user", str(me), "Account=lab")

    def tried(self, *command: str) -> bool:
        try:
            self.call(*command, timeout=15)
        except (RuntimeError, subprocess.TimeoutExpired):
            return False
        return True

    def daemon(self, name: str) -> None:
        self.call(name, timeout=30)
        self.until(lambda: (self.folder / f"{name}.pid").exists(), 30)

    def restart_controller(self, pause: float = 4) -> None:
        self.stop("slurmctld")
        time.sleep(pause)
        self.daemon("slurmctld")

    def wait_until_idle(self) -> None:
        self.until(lambda: "idle" in self.call("sinfo", "-h", "-o", "%T", check=False), 60)

    def until(self, condition, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the lab does not come up; see the logs in {self.folder}")
            time.sleep(0.3)

    def stop(self, name: str) -> None:
        file = self.folder / f"{name}.pid"
        try:
            pid = int(file.read_text())
            if not Path(f"/proc/{pid}/comm").read_text().startswith(name[:8]):
                raise ProcessLookupError
            os.kill(pid, signal.SIGTERM)
            self.until(lambda: not Path(f"/proc/{pid}").exists(), 15)
        except (OSError, ValueError):
            pass
        except RuntimeError:
            os.kill(pid, signal.SIGKILL)
        file.unlink(missing_ok=True)

    def down(self) -> None:
        if (self.folder / "slurmctld.pid").exists():
            self.call("scancel", "--me", check=False)
            time.sleep(1)
        for name in ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged"):
            self.stop(name)
