from pathlib import Path

import msgspec

from litho_agent import hostfacts
from litho_agent.disks.disk import Disk

DISKS = (("loop0", "loop"), ("sda", "ata"), ("loop1", "loop"), ("nvme0n1", "nvme"))


def machine(root: Path) -> Path:
    def put(name: str, text: str) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    put("proc/cpuinfo", "processor\t: 0\nmodel name\t: AMD EPYC 9354P\nprocessor\t: 1\nmodel name\t: other\n")
    put("proc/meminfo", "MemFree:  1 kB\nMemTotal:       16384 kB\n")
    put("sys/class/dmi/id/sys_vendor", "Dell Inc.\n")
    put("sys/class/dmi/id/product_name", "PowerEdge R650\n")
    put("sys/class/net/eth0/device/vendor", "0x8086")
    put("sys/class/net/eth0/address", "52:54:00:00:00:01\n")
    put("sys/class/net/eth0/operstate", "up\n")
    put("sys/class/net/eth0/speed", "25000\n")
    put("sys/class/net/eth1/device/vendor", "0x8086")
    put("sys/class/net/eth1/speed", "-1\n")
    put("sys/class/net/lo/address", "00:00:00:00:00:00\n")
    return root


def test_a_machine_is_told_from_its_proc_and_sys(tmp_path):
    facts = hostfacts.inventory(machine(tmp_path))
    assert facts["cpu"]["model"] == "AMD EPYC 9354P"
    assert facts["memory"] == 16 * 1024 * 1024
    assert facts["board"] == "Dell Inc. PowerEdge R650"
    assert facts["nics"] == [
        {"name": "eth0", "mac": "52:54:00:00:00:01", "state": "up", "speed": 25000},
        {"name": "eth1", "mac": "", "state": "", "speed": 0},
    ]


def test_loop_devices_are_no_part_of_a_machine(tmp_path):
    disks = [Disk(name=name, path=f"/dev/{name}", size=10, transport=transport) for name, transport in DISKS]
    facts = hostfacts.inventory(tmp_path, disks)
    assert [disk["name"] for disk in facts["disks"]] == ["sda", "nvme0n1"]


def test_what_cannot_be_read_is_left_out(tmp_path):
    facts = hostfacts.inventory(tmp_path)
    assert (facts["cpu"]["model"], facts["memory"], facts["nics"], facts["board"]) == ("", 0, [], "")


def test_this_machines_facts_fit_into_a_claim():
    assert len(msgspec.json.encode(hostfacts.inventory())) < 20_000
