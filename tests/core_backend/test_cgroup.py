import pytest

from core_backend import cgroup


@pytest.fixture
def mount(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path)
    monkeypatch.setattr(cgroup, "_own_path", lambda controller: "/mine")

    def write(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    return write


def test_without_control_groups_there_is_no_limit(mount):
    assert (cgroup.memory_limit(), cgroup.memory_usage(), cgroup.cpu_quota()) == (None, 0, None)


def test_version_2_is_read_from_the_processs_own_group(mount):
    mount("memory.max", "max")
    mount("mine/memory.max", "1000")
    mount("mine/memory.current", "700")
    mount("mine/memory.stat", "anon 400\ninactive_file 100\n")
    mount("mine/cpu.max", "150000 100000")
    assert (cgroup.memory_limit(), cgroup.memory_usage(), cgroup.cpu_quota()) == (1000, 600, 1.5)


def test_version_1_is_read_from_the_root_of_a_container(mount):
    mount("memory/memory.limit_in_bytes", "1000")
    mount("memory/memory.usage_in_bytes", "700")
    mount("memory/memory.stat", "inactive_file 1\ntotal_inactive_file 100\n")
    mount("cpu/cpu.cfs_quota_us", "200000")
    mount("cpu/cpu.cfs_period_us", "100000")
    assert (cgroup.memory_limit(), cgroup.memory_usage(), cgroup.cpu_quota()) == (1000, 600, 2.0)


def test_what_stands_for_no_limit_is_none(mount):
    mount("memory/memory.limit_in_bytes", "9223372036854771712")
    mount("cpu/cpu.cfs_quota_us", "-1")
    assert (cgroup.memory_limit(), cgroup.cpu_quota()) == (None, None)
