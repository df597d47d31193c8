"""Running means."""

import pytest
import torch

from dassl.utils import AverageMeter, MetricMeter


def test_the_mean_weights_each_value_by_its_count():
    meter = AverageMeter()
    meter.update(1.0)
    meter.update(4.0, n=2)
    assert (meter.val, meter.avg, meter.sum, meter.count) == (4.0, 3.0, 9.0, 3)
    meter.reset()
    assert (meter.avg, meter.count) == (0.0, 0)


def test_the_moving_average_keeps_nine_tenths():
    meter = AverageMeter(ema=True)
    meter.update(1.0)
    meter.update(2.0)
    assert meter.avg == pytest.approx(0.9 * 0.1 + 0.2)


def test_a_tensor_is_read_only_when_a_number_is_requested():
    class Watched(torch.Tensor):
        looked_at = 0

        def __float__(self):
            Watched.looked_at += 1
            return super().__float__()

    meter = MetricMeter()
    for value in (1.0, 2.0):
        meter.update({"loss": torch.tensor(value).as_subclass(Watched)})
    assert Watched.looked_at == 0
    assert meter.meters["loss"].avg == 1.5
    assert Watched.looked_at == 2


def test_the_line_shows_last_and_mean_in_the_order_given():
    meter = MetricMeter()
    meter.update({"loss": torch.tensor([2.0], requires_grad=True), "acc": 25})
    meter.update({"loss": 1.0, "acc": 75.0})
    assert str(meter) == "loss 1.0000 (1.5000) acc 75.0000 (50.0000)"


def test_none_is_accepted_and_anything_but_a_dict_is_not():
    meter = MetricMeter()
    meter.update(None)
    assert str(meter) == ""
    with pytest.raises(TypeError, match="expected a dict"):
        meter.update([1.0])


def test_a_restored_meter_continues_as_if_never_stopped():
    values = torch.rand(7).tolist()
    whole, first, second = MetricMeter(), MetricMeter(), MetricMeter()
    for value in values:
        whole.update({"loss": value})
    for value in values[:3]:
        first.update({"loss": torch.tensor(value, dtype=torch.float64)})
    second.load_state_dict(first.state_dict())
    for value in values[3:]:
        second.update({"loss": value})
    assert second.state_dict() == whole.state_dict() and str(second) == str(whole)
