// Command flux-apply does with a folder what Flux's kustomize-controller does at each reconciliation, with the same
// library: it applies the manifests, deletes what the folder no longer has, and waits by kstatus until all is ready.
//
// INVENTORY is a file with the objects of the last run, which a Kustomization has in its status. Each object is printed
// with its result: created, configured, unchanged or deleted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/cli-utils/pkg/object"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/normalize"
	"github.com/fluxcd/pkg/ssa/utils"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	controller = "kustomize-controller"
	group      = "kustomize.toolkit.fluxcd.io"
	name       = "test"
	namespace  = "flux-system"
)

type objects = []*unstructured.Unstructured

func main() {
	log.SetFlags(0)
	timeout := flag.Duration("timeout", time.Minute, "how long to wait until all is ready")
	flag.Parse()
	if flag.NArg() != 2 {
		log.Fatal("usage: flux-apply [-timeout DURATION] FOLDER INVENTORY")
	}
	if err := reconcile(context.Background(), flag.Arg(0), flag.Arg(1), *timeout); err != nil {
		log.Fatal(err)
	}
}

func reconcile(ctx context.Context, folder, inventory string, timeout time.Duration) error {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return err
	}
	wanted, err := read(files...)
	if err != nil {
		return err
	}
	former, err := read(inventory)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	manager, err := newManager()
	if err != nil {
		return err
	}

	applied, err := apply(ctx, manager, wanted)
	if err != nil {
		return err
	}
	report(applied)
	if err := write(inventory, wanted); err != nil {
		return err
	}
	kept := applied.ToObjMetadataSet()
	if err := prune(ctx, manager, slices.DeleteFunc(former, func(it *unstructured.Unstructured) bool {
		return kept.Contains(object.UnstructuredToObjMetadata(it))
	})); err != nil {
		return err
	}
	// Flux polls every 5 seconds.
	wait := ssa.WaitOptions{Interval: 200 * time.Millisecond, Timeout: timeout, FailFast: true}
	return manager.WaitForSetWithContext(ctx, kept, wait)
}

func newManager() (*ssa.ResourceManager, error) {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // no limit, since it polls more often than Flux
	api, err := client.New(config, client.Options{})
	if err != nil {
		return nil, err
	}
	poller := polling.NewStatusPoller(api, api.RESTMapper(), polling.Options{})
	return ssa.NewResourceManager(api, poller, ssa.Owner{Field: controller, Group: group}), nil
}

func apply(ctx context.Context, manager *ssa.ResourceManager, wanted objects) (*ssa.ChangeSet, error) {
	if err := normalize.UnstructuredList(wanted); err != nil {
		return nil, err
	}
	manager.SetOwnerLabels(wanted, name, namespace)
	options := ssa.DefaultApplyOptions()
	options.Cleanup = ssa.ApplyCleanupOptions{
		Annotations: []string{corev1.LastAppliedConfigAnnotation},
		FieldManagers: []ssa.FieldManager{
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationApply},
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: "before-first-apply", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: controller, OperationType: metav1.ManagedFieldsOperationUpdate},
		},
	}
	return manager.ApplyAllStaged(ctx, wanted, options)
}

func prune(ctx context.Context, manager *ssa.ResourceManager, stale objects) error {
	deleted, err := manager.DeleteAll(ctx, stale, ssa.DeleteOptions{
		PropagationPolicy: metav1.DeletePropagationBackground,
		Inclusions:        manager.GetOwnerLabels(name, namespace),
		Exclusions:        map[string]string{group + "/prune": "disabled", group + "/reconcile": "disabled"},
	})
	report(deleted)
	return err
}

func report(changes *ssa.ChangeSet) {
	for _, change := range changes.Entries {
		fmt.Println(change)
	}
}

func read(files ...string) (objects, error) {
	var all objects
	for _, file := range files {
		content, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer content.Close()
		some, err := utils.ReadObjects(content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

func write(file string, all objects) error {
	content, err := utils.ObjectsToYAML(all)
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(content), 0o600)
}
