/**
 * The tree of main or of a handler, as a routine.
 */
import type { Step } from "./assembler/routine.ts";
import { AGAIN, type Call, CLASSES, type End, type Node } from "./explore.ts";

/** How a build says what its programs do. */
export interface Target {
  /** A call. That of pause is for good. Labels of its own begin with `label`. */
  call(call: Call, label: string, reason: string): readonly Step[];
  end(end: End, reason: string): readonly Step[];
  /** What a step is there for. */
  reasonOf?(at: Error | undefined): string;
}

/**
 * Lowers a tree. What is reached in more than one way is written once.
 *
 * @param label what the labels of its nodes begin with
 */
export function lower(root: Node, label: string, target: Target): Step[] {
  const steps: Step[] = [];
  const labelled: Node[] = [];
  const written: Node[] = [];
  const labelOf = (node: Node): string => {
    if (!labelled.includes(node)) labelled.push(node);
    return `${label}.${labelled.indexOf(node) + 1}`;
  };

  const pending = [root];
  for (let first = pending.shift(); first !== undefined; first = pending.shift()) {
    if (written.includes(first)) continue;
    for (let node: Node | undefined = first; node !== undefined; ) {
      const here = labelOf(node);
      if (written.includes(node)) {
        steps.push({ jump: here });
        break;
      }
      written.push(node);
      steps.push({ label: here });
      if (!("call" in node)) {
        steps.push(...target.end(node, "exit" in node ? (target.reasonOf?.(node.at) ?? "") : ""));
        break;
      }
      const { call, branches, at }: Extract<Node, { call: Call }> = node;
      const reason = target.reasonOf?.(at) ?? "";
      steps.push(...target.call(call, here, reason));
      if (call.word === "pause") break;
      const otherwise: Node | typeof AGAIN | undefined = branches[branches.length - 1];
      for (let index = 0; index < branches.length - 1; index++) {
        const branch = branches[index];
        const when = CLASSES[call.word][index]?.[0];
        if (branch === undefined || branch === otherwise || when === undefined) continue;
        const jump = branch === AGAIN ? here : labelOf(branch);
        if (call.word === "argument") steps.push({ jump, whenArgument: call.text, reason });
        else if (when !== "found") steps.push({ jump, when, reason });
        if (branch !== AGAIN) pending.push(branch);
      }
      if (otherwise === AGAIN) steps.push({ jump: here, reason });
      node = otherwise === AGAIN ? undefined : otherwise;
    }
  }
  return steps;
}
