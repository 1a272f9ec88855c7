"""Which kernel modules go in."""

import pytest

from litho.errors import ConfigError
from litho_rootimg import modules

DEP = modules.parse_dep(
    "kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko: kernel/drivers/ptp/ptp.ko kernel/drivers/pps/pps_core.ko\n"
    "kernel/drivers/net/ethernet/netronome/nfp/nfp.ko: kernel/net/tls/tls.ko\n"
    "kernel/drivers/net/virtio_net.ko: kernel/net/core/failover.ko\n"
    "kernel/drivers/net/virtio_net_other.ko:\n"
    "kernel/drivers/infiniband/hw/mlx5/mlx5_ib.ko:\n"
    "kernel/drivers/ptp/ptp.ko:\n"
)


def test_a_folder_brings_all_below_it_and_what_that_needs():
    assert modules.select(DEP, ["drivers/net/ethernet"], without=["drivers/net/ethernet/netronome"]) == [
        "kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko",
        "kernel/drivers/pps/pps_core.ko",
        "kernel/drivers/ptp/ptp.ko",
    ]


def test_a_file_is_that_file_and_no_other():
    assert modules.select(DEP, ["drivers/net/virtio_net.ko"]) == [
        "kernel/drivers/net/virtio_net.ko",
        "kernel/net/core/failover.ko",
    ]


def test_a_star_stands_for_folders():
    assert modules.select(DEP, ["drivers/infiniband/hw/mlx*"]) == ["kernel/drivers/infiniband/hw/mlx5/mlx5_ib.ko"]


def test_a_pattern_that_names_nothing_is_an_error():
    with pytest.raises(ConfigError, match="drivers/net/gone"):
        modules.select(DEP, ["drivers/net/gone"])
