package report

import "time"

// Metrics is the load of the device. Its fields travel in a slow lane: alone they
// are sent at most every five minutes. A nil field is null in the report: not
// known, or not to be collected.
type Metrics struct {
	CPUUsage           *int    `json:"cpu_usage"`     // per cent
	MemoryUsage        *int    `json:"memory_usage"`  // MiB
	MemoryTotal        *int    `json:"memory_total"`  // MiB
	StorageUsage       *int    `json:"storage_usage"` // MiB
	StorageTotal       *int    `json:"storage_total"` // MiB
	StorageBlockDevice *string `json:"storage_block_device"`
	CPUTemp            *int    `json:"cpu_temp"` // °C
	CPUID              *string `json:"cpu_id"`
}

// metricsGap is the shortest time between two reports that have nothing but
// metrics to tell.
const metricsGap = 300 * time.Second

// The sizes of the buckets in which values that flutter are reported.
const (
	cpuBucket     = 20 // per cent
	memoryBucket  = 10 // MiB
	storageBucket = 10 // MiB
	tempBucket    = 5  // °C
)

// settled gives the metrics to report: a value that stays in the bucket of the
// last reported one, or has only just left it, is that one. Otherwise a device at
// rest whose memory is at the border of two buckets would report for ever.
func (m Metrics) settled(last *Metrics) *Metrics {
	if last == nil {
		return &m
	}
	m.CPUUsage = inBucket(m.CPUUsage, last.CPUUsage, cpuBucket)
	m.MemoryUsage = inBucket(m.MemoryUsage, last.MemoryUsage, memoryBucket)
	m.StorageUsage = inBucket(m.StorageUsage, last.StorageUsage, storageBucket)
	m.CPUTemp = inBucket(m.CPUTemp, last.CPUTemp, tempBucket)
	return &m
}

func inBucket(now, last *int, size int) *int {
	if now != nil && last != nil && (floor(*now, size) == floor(*last, size) || max(*now-*last, *last-*now) < size/2) {
		return last
	}
	return now
}

// floor divides towards minus infinity: it may be cold.
func floor(n, size int) int {
	if n < 0 {
		return -((-n + size - 1) / size)
	}
	return n / size
}

// isMetric reports whether a field of a report is one of Metrics.
func isMetric(name string) bool {
	switch name {
	case "cpu_usage", "memory_usage", "memory_total", "storage_usage", "storage_total", "storage_block_device", "cpu_temp", "cpu_id":
		return true
	}
	return false
}
